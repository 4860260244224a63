package main

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"sluice/cluster/sqlite"
	"sluice/internal/auth"
)

// Accounts from a shell: what is done, what is refused, and that a password is never asked on the command line.
func TestUsers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sluice.db")
	reg, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	for _, c := range []struct {
		name, args, in string
		code           int
		out, err       string // parts
	}{
		{"nobody yet", "list", "", 0, "NAME", ""},
		{"a link", "link --url=https://live.example.com", "", 0, "https://live.example.com/#/first/", ""},
		{"a link without an address", "link", "", exitUsage, "", "--url"},
		{"the first", "add Ada@example.com", "four plain words\n", 0, "", ""},
		{"again", "add ada@example.com", "four plain words\n", exitFailed, "", "exists already"},
		{"no more links", "link --url=https://live.example.com", "", exitFailed, "", "there are accounts already"},
		{"no password", "add bob", "", exitFailed, "", "standard input"},
		{"a weak one", "add bob", "bob\n", exitFailed, "", "10 characters"},
		{"a password as an argument", "add bob secret", "", exitUsage, "", "unexpected argument"},
		{"a bad name", "add a/b", "four plain words\n", exitFailed, "", "a name is"},
		{"a role in an application", "add bob --role=operator --app=live", "four plain words", 0, "", ""},
		{"no such role", "add eve --role=god", "x\n", exitUsage, "", "administrator"},
		{"the list", "list", "", 0, "live=operator", ""},
		{"the last administrator's role", "role ada@example.com operator", "", exitFailed, "", "last administrator"},
		{"another role", "role bob administrator", "", 0, "", ""},
		{"none in an application", "role bob none --app=live", "", 0, "", ""},
		{"then it may go", "role ada@example.com read-only", "", 0, "", ""},
		{"another password", "password ada@example.com", "other plain words\n", 0, "", ""},
		{"of nobody", "password nobody", "other plain words\n", exitFailed, "", "no such account"},
		{"remove", "remove ada@example.com", "", 0, "", ""},
		{"remove again", "remove ada@example.com", "", exitFailed, "", "no such account"},
	} {
		var out, errs output
		args := append([]string{"users"}, strings.Fields(c.args)...)
		args = append(args, "--store=sqlite:"+path, "--dir="+filepath.Dir(path))
		code := run(t.Context(), args, nil, strings.NewReader(c.in), &out, &errs)
		if code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(errs.String(), c.err) {
			t.Errorf("%s: exit %d, want %d\n%s%s", c.name, code, c.code, out.String(), errs.String())
		}
		if c.name == "another password" {
			if _, _, err := auth.New(reg, auth.Config{}).LogIn(t.Context(), "ada@example.com", "other plain words", netip.MustParseAddr("192.0.2.1"), ""); err != nil {
				t.Errorf("log-in with the new password: %v", err)
			}
		}
	}
	var out, errs output
	if code := run(t.Context(), []string{"users", "list", "--json", "--store=sqlite:" + path}, nil, nil, &out, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	var rows []accountRow
	if err := json.Unmarshal([]byte(out.String()), &rows); err != nil || len(rows) != 1 || rows[0].Name != "bob" || rows[0].Role != auth.Administrator || len(rows[0].Apps) != 0 {
		t.Errorf("the accounts are %s, %v", out.String(), err)
	}
	list, _, err := auth.New(reg, auth.Config{}).AuditLog(t.Context(), auth.AuditQuery{Search: "(shell)"})
	if err != nil || len(list) != 8 || list[0].Action != "remove an account" || list[0].Target != "ada@example.com" {
		t.Errorf("the audit log has %+v, %v", list, err)
	}
}
