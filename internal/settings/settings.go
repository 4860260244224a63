// Package settings holds what can be changed of a cluster while it runs: which applications there are, and the settings of each and of the
// cluster. They are documents of the registry: every node has them within two seconds, and the last 50 versions are kept with who made
// them and when. While the registry is away what was known goes on to hold.
//
// Imports: cluster.
package settings

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Errors; test for them with errors.Is.
var (
	// ErrBad: a setting has a value that it can't have.
	ErrBad = errors.New("the settings can't be used")
	// ErrNoApp: there is no such application.
	ErrNoApp = errors.New("there is no such application")
	// ErrAppExists: there is one of that name.
	ErrAppExists = errors.New("the application exists already")
	// ErrNoVersion: it is none, or one that is no longer kept.
	ErrNoVersion = errors.New("there is no such version of the settings")
	// ErrChanged: the settings have another version than the one that was to be changed.
	ErrChanged = errors.New("the settings were changed meanwhile")
	// ErrUnavailable: the registry can't be reached.
	ErrUnavailable = errors.New("the registry can't be reached")
)

// App is what can be changed of an application. Its members are named as those of other servers where these have the same.
type App struct {
	Ladder       Ladder   `json:"ladder" required:"false" doc:"Smaller renditions that are made of its streams."`
	PlayoutDelay string   `json:"playoutDelay" required:"false" maxLength:"20" doc:"Players keep pictures back for so long at most: 0s to 40s, or off. It holds for a stream whose first viewer comes after the change." example:"100ms"`
	ViewerLimit  int      `json:"webRTCViewerLimit" required:"false" minimum:"-1" maximum:"100000000" doc:"Most viewers of each of its streams in the cluster; -1: no limit. Who is there stays. Nodes learn of each other's viewers within ten seconds."`
	Origins      []string `json:"allowedOrigins" required:"false" nullable:"false" maxItems:"100" doc:"Sites whose pages may publish and play, such as https://example.com; empty: all. Programs that are no browsers need none."`
	Access       Access   `json:"access" required:"false" doc:"Who may publish and play."`
	Webhooks     Webhooks `json:"webhooks" required:"false" doc:"Who is told of what happens."`
}

// Ladder is the renditions of an application's streams. Rules of sluice.yaml for fewer streams go before.
type Ladder struct {
	Rungs []string `json:"rungs" required:"false" nullable:"false" maxItems:"8" doc:"Such as 720p:1500k; none: streams are played as they are published." example:"[\"720p:1500k\",\"480p:800k\"]"`
}

// Cluster is what can be changed of the whole cluster.
type Cluster struct {
	ServerName string   `json:"serverName" required:"false" maxLength:"100" doc:"What people call the cluster."`
	LogLevel   string   `json:"logLevel" required:"false" enum:",debug,info,warn,error" doc:"The least that nodes log; empty: what each was started with."`
	Webhooks   Webhooks `json:"webhooks" required:"false" doc:"Who is told of what happens to nodes."`
}

const (
	maxSettings = 32 << 10 // bytes of one version
	maxKept     = 50       // versions
	maxDocument = 400 << 10
)

// reserved names are addresses of the server itself.
var reserved = []string{"assets", "debug", "gateway", "healthz", "ladder", "load", "metrics", "openapi", "readyz", "rest", "scaling", "settings"}

// CheckName refuses what no application can be called.
func CheckName(app string) error {
	ok := app != "" && len(app) <= 32
	for i := range len(app) {
		c := app[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	}
	if !ok {
		return fmt.Errorf("%w: an application's name is 1 to 32 letters, digits, '-' or '_'", ErrBad)
	}
	if slices.Contains(reserved, strings.ToLower(app)) {
		return fmt.Errorf("%w: %q is an address of the server itself", ErrBad, app)
	}
	return nil
}

// check is what this package knows of right values; the rest is for who uses them (Config.Check).
func (a App) check() error {
	for _, o := range a.Origins {
		u, err := url.Parse(o)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || len(o) > 300 {
			return fmt.Errorf("%w: allowedOrigins: %.80q is not an origin, such as https://example.com", ErrBad, o)
		}
	}
	if a.ViewerLimit < -1 {
		return fmt.Errorf("%w: webRTCViewerLimit is -1 or more", ErrBad)
	}
	return nil
}

// Allows reports whether pages of a site may use the application; "" is no page.
func (a App) Allows(origin string) bool {
	return origin == "" || len(a.Origins) == 0 || slices.ContainsFunc(a.Origins, func(o string) bool { return strings.EqualFold(o, origin) })
}

func (c Cluster) check() error {
	if u, err := url.Parse(c.Webhooks.URL); err != nil || c.Webhooks.URL != "" && (u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil) {
		return fmt.Errorf("%w: webhooks.listenerHookURL is https://HOST/PATH", ErrBad)
	}
	if !slices.Contains([]string{"", "debug", "info", "warn", "error"}, c.LogLevel) {
		return fmt.Errorf("%w: logLevel is debug, info, warn or error, or empty", ErrBad)
	}
	return nil
}
