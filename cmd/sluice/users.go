package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"sluice/cluster"
	"sluice/internal/auth"
	"sluice/internal/config"
)

// usersCmd works on the registry itself: whoever can open that needs no password.
type usersCmd struct {
	List     usersListCmd     `cmd:"" help:"List the accounts."`
	Add      usersAddCmd      `cmd:"" help:"Make an account; its password is asked for, or read from standard input."`
	Role     usersRoleCmd     `cmd:"" help:"Give an account another role, everywhere or in an application."`
	Password usersPasswordCmd `cmd:"" help:"Give an account another password, and end its sessions."`
	Remove   usersRemoveCmd   `cmd:"" help:"Remove an account, with its sessions and keys."`
	Link     usersLinkCmd     `cmd:"" help:"Print a link for the first administrator."`
}

// shell is who does what is done from a shell, in the audit log.
const shell = "(shell)"

// with opens the registry for fn, and writes into the audit log what was done.
func (f storeFlags) with(p *process, top *cli, action, target string, fn func(context.Context, *auth.Accounts) error) (err error) {
	reg, err := f.open(p, top)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	ctx, cancel := context.WithTimeout(p.ctx, askWithin)
	defer cancel()
	accounts := auth.New(reg, auth.Config{})
	if err = fn(ctx, accounts); err == nil && action != "" {
		accounts.Record(ctx, auth.Entry{Who: shell, Action: action, Target: target, Result: auth.ResultOK})
	}
	return err
}

type usersListCmd struct {
	storeFlags `embed:""`
	JSON       bool `name:"json" help:"Print JSON."`
}

// accountRow is an account as users list --json prints it. Programs read it: fields may be added, not changed.
type accountRow struct {
	Name    string               `json:"name"`
	Role    auth.Role            `json:"role"`
	Apps    map[string]auth.Role `json:"apps"`
	Blocked bool                 `json:"blocked"`
	Created time.Time            `json:"created"`
}

// Run prints the accounts.
func (c *usersListCmd) Run(p *process, top *cli) error {
	rows := []accountRow{}
	err := c.with(p, top, "", "", func(ctx context.Context, a *auth.Accounts) error {
		for {
			list, total, err := a.List(ctx, "", len(rows), cluster.MaxFind)
			if err != nil {
				return err
			}
			for _, u := range list {
				rows = append(rows, accountRow{Name: u.Name, Role: u.Role, Apps: u.Apps, Blocked: u.Blocked, Created: u.Created})
			}
			if len(rows) >= total || len(list) == 0 {
				return nil
			}
		}
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.out, rows)
	}
	t := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tROLE\tAPPLICATIONS\tSTATE\tMADE")
	for _, r := range rows {
		state, apps := "ready", []string{}
		if r.Blocked {
			state = "blocked"
		}
		for app, role := range r.Apps {
			apps = append(apps, app+"="+string(role))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.Name, cmp.Or(string(r.Role), "-"), cmp.Or(strings.Join(apps, ","), "-"), state, r.Created.Format(time.DateOnly))
	}
	return t.Flush()
}

type usersAddCmd struct {
	storeFlags `embed:""`
	Name       string `arg:"" help:"Name to log in with, such as an e-mail address."`
	Role       string `help:"administrator, operator or read-only; everywhere, or in --app." enum:"administrator,operator,read-only" default:"administrator"`
	App        string `help:"Limit the role to this application." default:""`
}

// Run makes an account.
func (c *usersAddCmd) Run(p *process, top *cli) error {
	password, err := readPassword(p)
	if err != nil {
		return err
	}
	return c.with(p, top, "add an account", c.Name, func(ctx context.Context, a *auth.Accounts) error {
		u := auth.Account{Name: c.Name, Role: auth.Role(c.Role)}
		if c.App != "" {
			u.Role, u.Apps = auth.NoRole, map[string]auth.Role{c.App: u.Role}
		}
		_, err := a.Add(ctx, u, password)
		return err
	})
}

type usersRoleCmd struct {
	storeFlags `embed:""`
	Name       string `arg:"" help:"Name of the account."`
	Role       string `arg:"" help:"administrator, operator, read-only or none." enum:"administrator,operator,read-only,none"`
	App        string `help:"In this application only." default:""`
}

// Run changes a role.
func (c *usersRoleCmd) Run(p *process, top *cli) error {
	role := auth.Role(c.Role)
	if c.Role == "none" {
		role = auth.NoRole
	}
	target := c.Name + ": " + c.Role
	if c.App != "" {
		target += " in " + c.App
	}
	return c.with(p, top, "change a role", target, func(ctx context.Context, a *auth.Accounts) error {
		name, err := auth.CleanName(c.Name)
		if err != nil {
			return err
		}
		_, err = a.Edit(ctx, name, func(u *auth.Account) error {
			switch {
			case c.App == "":
				u.Role = role
			case role == auth.NoRole:
				delete(u.Apps, c.App)
			default:
				if u.Apps == nil {
					u.Apps = map[string]auth.Role{}
				}
				u.Apps[c.App] = role
			}
			return nil
		})
		return err
	})
}

type usersPasswordCmd struct {
	storeFlags `embed:""`
	Name       string `arg:"" help:"Name of the account."`
}

// Run changes a password.
func (c *usersPasswordCmd) Run(p *process, top *cli) error {
	password, err := readPassword(p)
	if err != nil {
		return err
	}
	return c.with(p, top, "change a password", c.Name, func(ctx context.Context, a *auth.Accounts) error {
		return a.SetPassword(ctx, c.Name, password)
	})
}

type usersRemoveCmd struct {
	storeFlags `embed:""`
	Name       string `arg:"" help:"Name of the account."`
}

// Run removes an account.
func (c *usersRemoveCmd) Run(p *process, top *cli) error {
	return c.with(p, top, "remove an account", c.Name, func(ctx context.Context, a *auth.Accounts) error {
		name, err := auth.CleanName(c.Name)
		if err != nil {
			return err
		}
		return a.Remove(ctx, name)
	})
}

type usersLinkCmd struct {
	storeFlags `embed:""`
	URL        string `help:"Where the cluster is reached; default: where sluice up runs it." placeholder:"https://HOST" default:""`
}

// Run prints a link for the first administrator.
func (c *usersLinkCmd) Run(p *process, top *cli) error {
	base := originOf(c.URL)
	if base == "" {
		cfg, err := config.Load(config.File(top.Config, p.env), p.env)
		if err != nil {
			return usageError{err}
		}
		if at, err := (home{dir: cmp.Or(c.Dir, cfg.Up.Dir)}).readAddress(); err == nil {
			base = at.Publish
		} else if base = originOf(cfg.Node.PublishURL); base == "" {
			return usageError{errors.New("say with --url where the cluster is reached, such as https://live.example.com")}
		}
	}
	return c.with(p, top, "make a link for the first administrator", "", func(ctx context.Context, a *auth.Accounts) error {
		token, err := a.FirstLink(ctx)
		if err == nil && token == "" {
			return errors.New("there are accounts already: sluice users list has them, sluice users password gives one another password")
		}
		if err == nil {
			_, err = fmt.Fprintln(p.out, linkOf(base, token))
		}
		return err
	})
}

// linkOf is where somebody makes himself the first administrator. What stands behind the # is sent to no server, and so is in no log.
func linkOf(base, token string) string { return strings.TrimSuffix(base, "/") + "/#/first/" + token }

// originOf returns a URL's origin if it has one: settings may also be a port of the page's own host.
func originOf(url string) string {
	if strings.HasPrefix(url, "https://") || strings.HasPrefix(url, "http://") {
		return url
	}
	return ""
}

// firstLinkAgain is the pause before the registry is asked again.
const firstLinkAgain = 5 * time.Second

// firstLink prints the link while there is no account.
func firstLink(ctx context.Context, out io.Writer, docs cluster.Documents, base string) error {
	accounts := auth.New(docs, auth.Config{})
	for ctx.Err() == nil {
		token, err := accounts.FirstLink(ctx)
		if err == nil {
			if token != "" {
				fmt.Fprintf(out, "make yourself the first administrator (within %s; once): %s\n", auth.LinkLife, linkOf(base, token))
			}
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(firstLinkAgain):
		}
	}
	<-ctx.Done()
	return nil
}

// readPassword asks at a terminal, without showing what is typed; else it reads a line.
func readPassword(p *process) (string, error) {
	if f, ok := p.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		var typed [2]string
		for i, prompt := range []string{"Password: ", "Again: "} {
			fmt.Fprint(p.err, prompt)
			b, err := term.ReadPassword(int(f.Fd()))
			fmt.Fprintln(p.err)
			if err != nil {
				return "", fmt.Errorf("read password: %w", err)
			}
			typed[i] = string(b)
		}
		if typed[0] != typed[1] {
			return "", errors.New("these are two different passwords: try again")
		}
		return typed[0], nil
	}
	if p.in == nil {
		return "", errors.New("give the password on standard input")
	}
	const most = 4096
	line, err := bufio.NewReader(io.LimitReader(p.in, most)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read password: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.New("give the password on standard input")
	}
	return line, nil
}
