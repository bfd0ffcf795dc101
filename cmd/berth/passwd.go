// SPDX-License-Identifier: Apache-2.0

// Command berth passwd.

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/term"
)

// maxCost is the highest cost of bcrypt that a server computes: it takes about a minute.
const maxCost = 20

// passwdCmd is berth passwd.
type passwdCmd struct {
	Name   string
	File   string
	Cost   int
	Delete bool
}

func (c *passwdCmd) command() *cobra.Command {
	cmd := newCommand("passwd NAME", "Make an entry for a file of users.",
		"Make an entry for berth serve --htpasswd, for the user NAME. The password is read from a terminal without being shown, or from standard input.",
		c.Run,
		flagGroup{"Flags", func(f *pflag.FlagSet) {
			f.Var(anyPath(&c.File), "file", "Add the user to this `FILE`, or change the password there, instead of printing the line.")
			f.IntVar(&c.Cost, "cost", bcrypt.DefaultCost, "Cost `N` of bcrypt: each further one doubles the time.")
			f.BoolVar(&c.Delete, "delete", false, "Remove the user from the file.")
		}})
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.New("expected the NAME of a user")
		}
		c.Name = args[0]
		return noArguments(cmd, args[1:])
	}
	return cmd
}

func (c *passwdCmd) Run(stdout io.Writer, logs logOutput) error {
	if c.Name == "" || strings.ContainsAny(c.Name, ":\r\n") || strings.TrimSpace(c.Name) != c.Name || c.Name[0] == '#' {
		return fmt.Errorf("the name %q can't stand in a file of users", c.Name)
	}
	if err := checkUserName(c.Name); err != nil {
		return err
	}
	if c.Delete {
		if c.File == "" {
			return errors.New("--delete requires --file")
		}
		return c.replace("")
	}
	if c.Cost < bcrypt.MinCost || c.Cost > maxCost {
		return fmt.Errorf("--cost requires a number from %d to %d", bcrypt.MinCost, maxCost)
	}
	password, err := readPassword(logs)
	if err != nil {
		return err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), c.Cost)
	if err != nil {
		return err
	}
	line := c.Name + ":" + string(hash) + "\n"
	if c.File == "" {
		_, err = io.WriteString(stdout, line)
		return err
	}
	return c.replace(line)
}

// readPassword reads a password from standard input.
func readPassword(prompt io.Writer) (string, error) {
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		var typed [2]string
		for i, text := range []string{"Password: ", "Again: "} {
			fmt.Fprint(prompt, text)
			password, err := term.ReadPassword(fd)
			fmt.Fprintln(prompt)
			if err != nil {
				return "", err
			}
			typed[i] = string(password)
		}
		if typed[0] != typed[1] {
			return "", errors.New("the passwords differ")
		}
		return checkPassword(typed[0])
	}
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 1<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return checkPassword(strings.TrimRight(line, "\r\n"))
}

func checkPassword(password string) (string, error) {
	if password == "" {
		return "", errors.New("the password is empty")
	}
	return password, nil
}

// replace replaces the user's line in the file, or adds it. Without a line it deletes
// the user.
func (c *passwdCmd) replace(line string) error {
	unlock, err := lockFolder(c.File)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := os.ReadFile(c.File)
	if err != nil && (line == "" || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	var out strings.Builder
	found := false
	for l := range strings.Lines(string(old)) {
		if !strings.HasPrefix(strings.TrimSpace(l), c.Name+":") {
			out.WriteString(strings.TrimSuffix(l, "\n") + "\n")
			continue
		}
		if !found {
			out.WriteString(line)
		}
		found = true
	}
	if !found && line == "" {
		return fmt.Errorf("%s: there is no user %q", c.File, c.Name)
	}
	if !found {
		out.WriteString(line)
	}
	return rewriteFile(c.File, []byte(out.String()), 0o600)
}
