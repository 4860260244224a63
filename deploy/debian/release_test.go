package debian_test

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dist is the folder that make release has filled, in SLUICE_DIST.
func dist(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SLUICE_DIST")
	if dir == "" {
		t.Skip("make release runs this, on what it has made")
	}
	return dir
}

// one is the file that a pattern matches.
func one(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: %d files, want 1 (%v)", pattern, len(files), err)
	}
	return files[0]
}

func machines() map[string]elf.Machine {
	return map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
}

func TestReleaseBinaries(t *testing.T) {
	dir := dist(t)
	for arch, machine := range machines() {
		t.Run(arch, func(t *testing.T) {
			name := one(t, filepath.Join(dir, "sluice_*_linux_"+arch))
			f, err := elf.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			if f.Machine != machine {
				t.Errorf("made for %v", f.Machine)
			}
			for _, p := range f.Progs {
				if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
					t.Errorf("not static: has %v", p.Type)
				}
			}
			info, err := buildinfo.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			sbom, err := os.ReadFile(one(t, filepath.Join(dir, "sluice_*_linux_"+arch+".cdx.json")))
			if err != nil {
				t.Fatal(err)
			}
			var bom struct {
				Components []struct{ Name, Version string }
			}
			if err := json.Unmarshal(sbom, &bom); err != nil {
				t.Fatal(err)
			}
			listed := map[string]string{}
			for _, c := range bom.Components {
				listed[c.Name] = c.Version
			}
			if len(info.Deps) == 0 {
				t.Error("the binary names no modules")
			}
			for _, m := range info.Deps {
				if listed[m.Path] != m.Version {
					t.Errorf("%s %s is in the binary, the list says %q", m.Path, m.Version, listed[m.Path])
				}
				if strings.HasPrefix(m.Path, "github.com/hashicorp/hcl") {
					t.Errorf("%s is for tests only", m.Path)
				}
			}
		})
	}
}

func TestReleasePackages(t *testing.T) {
	dir := dist(t)
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("dpkg-deb is not installed")
	}
	for arch := range machines() {
		t.Run(arch, func(t *testing.T) {
			deb := one(t, filepath.Join(dir, "sluice_*_"+arch+".deb"))
			got, err := exec.Command("dpkg-deb", "-f", deb, "Package", "Architecture", "Depends").Output()
			if want := "Package: sluice\nArchitecture: " + arch + "\nDepends: passwd\n"; err != nil || string(got) != want {
				t.Errorf("%s: %v: %q", deb, err, got)
			}
			list, err := exec.Command("dpkg-deb", "-c", deb).Output()
			if err != nil {
				t.Fatal(err)
			}
			modes := map[string]string{}
			for line := range strings.Lines(string(list)) {
				if f := strings.Fields(line); len(f) == 6 && f[0][0] == '-' {
					modes[strings.TrimPrefix(f[5], ".")] = f[0][1:] + " " + f[1]
				}
			}
			for _, c := range readRecipe(t).Contents {
				want := "rw-r--r-- root/root"
				if c.Dst == "/usr/bin/sluice" {
					want = "rwxr-xr-x root/root"
				}
				if modes[c.Dst] != want {
					t.Errorf("%s is %q, want %q", c.Dst, modes[c.Dst], want)
				}
				delete(modes, c.Dst)
			}
			if len(modes) > 0 {
				t.Errorf("files that nobody asked for: %v", modes)
			}
			out := t.TempDir()
			if err := exec.Command("dpkg-deb", "-x", deb, out).Run(); err != nil {
				t.Fatal(err)
			}
			packed, err := os.ReadFile(filepath.Join(out, "usr/bin/sluice"))
			plain, err2 := os.ReadFile(one(t, filepath.Join(dir, "sluice_*_linux_"+arch)))
			if err != nil || err2 != nil || !bytes.Equal(packed, plain) {
				t.Errorf("the binary in the package is not the one beside it (%v, %v)", err, err2)
			}
		})
	}
}

func TestReleaseChecksums(t *testing.T) {
	dir := dist(t)
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		said[name] = sum
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() == "SHA256SUMS" {
			continue
		}
		body, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != said[f.Name()] {
			t.Errorf("%s: SHA256SUMS has %q", f.Name(), said[f.Name()])
		}
		delete(said, f.Name())
	}
	if len(said) > 0 {
		t.Errorf("SHA256SUMS names what is not there: %v", said)
	}
}
