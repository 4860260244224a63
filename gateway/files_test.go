package gateway

import "testing"

func TestSocketLimit(t *testing.T) {
	for _, c := range []struct {
		name       string
		configured int
		files      uint64
		want       int
	}{
		{"plenty of files", 20000, 1 << 20, 20000},
		{"as many files as sockets", 20000, 20000, 6666},
		{"just enough", 20000, 60000, 20000},
		{"without a limit", 20000, ^uint64(0), 20000},
		{"not known", 20000, 0, 20000},
		{"hardly any", 20000, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := socketLimit(c.configured, c.files); got != c.want {
				t.Errorf("%d sockets, want %d", got, c.want)
			}
		})
	}
	if maxFiles() < 3 {
		t.Errorf("the limit of open files reads %d", maxFiles())
	}
}
