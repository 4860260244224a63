package mongo

import (
	"context"
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/clustertest"
	"sluice/cluster/mongo/mongotest"
)

// realServer is the variable that names a MongoDB server for the tests, by a URL without a database. Each test
// makes databases of its own there, and drops them.
const realServer = "SLUICE_TEST_MONGODB"

func TestConformance(t *testing.T) {
	line := mongotest.Start(t, mongotest.Options{}).Line(nil)
	conformance(t, func(database string) string { return line.URL(database) })
}

func TestConformanceOfMongoDB(t *testing.T) {
	conformance(t, realURL(t))
}

func conformance(t *testing.T, url func(database string) string) {
	clustertest.Run(t, func(t *testing.T, now func() time.Time) clustertest.Open {
		u := url(freshDatabase(t, url))
		return func(t *testing.T) cluster.Store { return open(t, u, WithClock(now)) }
	})
}

// realURL makes URLs of the server that the environment names, or skips the test.
func realURL(t *testing.T) func(database string) string {
	t.Helper()
	server := os.Getenv(realServer)
	if server == "" {
		t.Skip("needs a real MongoDB server: set " + realServer + " to its URL, such as mongodb://127.0.0.1:27017")
	}
	base, query, _ := strings.Cut(server, "?")
	return func(database string) string { return strings.TrimSuffix(base, "/") + "/" + database + "?" + query }
}

// freshDatabase names a database that nobody has, and drops it with the test.
func freshDatabase(t *testing.T, url func(string) string) string {
	t.Helper()
	name := "sluice_test_" + rand.Text()
	t.Cleanup(func() {
		r, err := Open(context.Background(), url(name))
		if err == nil {
			err = r.nodes.Database().Drop(context.Background())
			_ = r.Close()
		}
		if err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return name
}

// open opens a registry and closes it with the test.
func open(t *testing.T, url string, options ...Option) *Registry {
	t.Helper()
	r, err := Open(t.Context(), url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}
