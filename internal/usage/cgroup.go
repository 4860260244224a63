package usage

import (
	"bufio"
	"bytes"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// cgroups are the folders of this process's control groups, of version 1 or 2 (cgroups(7)), without the first slash. Limits of the groups above
// hold for it, too. "": there is none.
type cgroups struct {
	two                     folder // version 2 has one for all
	cpu1, cpuacct1, memory1 folder
}

// folder is a control group and where its hierarchy is mounted.
type folder struct{ mount, dir string }

// up lists a group's folder and those above it, up to the mount.
func (f folder) up() (list []string) {
	if f.mount == "" {
		return nil
	}
	for d := f.dir; ; d = path.Dir(d) {
		list = append(list, d)
		if d == f.mount || len(d) <= len(f.mount) {
			return list
		}
	}
}

// findGroups reads where the process is and where that is mounted.
func findGroups(root fs.FS) (g cgroups) {
	at := map[string]string{} // path by controller; "" is version 2's
	own, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range bytes.Lines(own) { // hierarchy-ID:controller-list:cgroup-path
		if f := strings.SplitN(strings.TrimSpace(string(line)), ":", 3); len(f) == 3 {
			for c := range strings.SplitSeq(f[1], ",") {
				at[c] = f[2]
			}
		}
	}
	mounts, _ := fs.ReadFile(root, "proc/self/mountinfo")
	lines := bufio.NewScanner(bytes.NewReader(mounts))
	for lines.Scan() { // ID parent major:minor root mount options [tags] - type source super-options
		head, tail, ok := strings.Cut(lines.Text(), " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(h) < 5 || len(t) < 3 {
			continue
		}
		put := func(into *folder, controller string) {
			if p, ok := at[controller]; ok {
				*into = locate(root, h[4], h[3], p)
			}
		}
		switch t[0] {
		case "cgroup2":
			put(&g.two, "")
		case "cgroup":
			for o := range strings.SplitSeq(t[2], ",") {
				switch o {
				case "cpu":
					put(&g.cpu1, o)
				case "cpuacct":
					put(&g.cpuacct1, o)
				case "memory":
					put(&g.memory1, o)
				}
			}
		}
	}
	return g
}

// locate finds a group within a mount. In a container its path may be that of the host, of which the mount shows only
// the container's part; then the mount itself is the group.
func locate(root fs.FS, mount, mounted, group string) folder {
	mount = strings.TrimPrefix(path.Clean(mount), "/")
	below, ok := strings.CutPrefix(group, strings.TrimSuffix(mounted, "/"))
	dir := path.Join(mount, below)
	if st, err := fs.Stat(root, dir); !ok || err != nil || !st.IsDir() {
		dir = mount
	}
	return folder{mount, dir}
}

// cpu lists the groups that have a limit.
func (g cgroups) cpu(root fs.FS) (list []cpuGroup) {
	for _, d := range g.two.up() {
		f := strings.Fields(read(root, d, "cpu.max")) // "max 100000", "200000 100000": microseconds of a period
		if len(f) != 2 {
			continue
		}
		used, known := lookup(read(root, d, "cpu.stat"), "usage_usec")
		if cores := quotient(f[0], f[1]); cores > 0 && known {
			list = append(list, cpuGroup{d, cores, used / 1e6})
		}
	}
	for _, d := range g.cpu1.up() {
		cores := quotient(read(root, d, "cpu.cfs_quota_us"), read(root, d, "cpu.cfs_period_us")) // -1: no limit
		if cores <= 0 || g.cpuacct1.mount == "" {
			continue
		}
		// The accounting is often in the same hierarchy; else the same folder of another.
		same := path.Join(g.cpuacct1.mount, strings.TrimPrefix(d, g.cpu1.mount))
		used, known := number(read(root, same, "cpuacct.usage"))
		if known {
			list = append(list, cpuGroup{d, cores, used / 1e9})
		}
	}
	return list
}

// memory is the share of the memory that is in use: of the group that is closest to its limit, or of the machine. What the kernel can
// drop at once, files not used lately, is not counted.
func (g cgroups) memory(root fs.FS) float64 {
	info, _ := fs.ReadFile(root, "proc/meminfo")
	total, available := parseMeminfo(info)
	share := portion(total-available, total)
	note := func(used, limit, stat, idle string) {
		u, ok := number(used)
		l, limited := number(limit)
		if !ok || !limited || total > 0 && l >= total { // no limit is "max", or a number beyond any machine
			return
		}
		files, _ := lookup(stat, idle)
		share = max(share, portion(u-files, l))
	}
	for _, d := range g.two.up() {
		note(read(root, d, "memory.current"), read(root, d, "memory.max"), read(root, d, "memory.stat"), "inactive_file")
	}
	for _, d := range g.memory1.up() {
		note(read(root, d, "memory.usage_in_bytes"), read(root, d, "memory.limit_in_bytes"), read(root, d, "memory.stat"), "total_inactive_file")
	}
	return share
}

func read(root fs.FS, dir, name string) string {
	b, _ := fs.ReadFile(root, path.Join(dir, name)) // a file that a group lacks says nothing
	return strings.TrimSpace(string(b))
}

func number(s string) (float64, bool) {
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil
}

// quotient is 0 unless both are numbers.
func quotient(a, b string) float64 {
	x, ok := number(a)
	y, also := number(b)
	if !ok || !also || y <= 0 {
		return 0
	}
	return x / y
}

// lookup finds a line "name value".
func lookup(text, name string) (float64, bool) {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == name {
			return number(v)
		}
	}
	return 0, false
}
