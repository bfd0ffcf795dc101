// SPDX-License-Identifier: Apache-2.0

// Command berth config.

package main

import (
	"encoding"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// configCmd is berth config.
type configCmd struct {
	Check configCheckCmd `cmd:"" help:"Check a configuration, with the files that it names."`
	Print configPrintCmd `cmd:"" help:"Print a configuration as YAML, and where each value comes from."`
}

// configCheckCmd is berth config check. It has the flags of berth serve.
type configCheckCmd struct {
	serveCmd `embed:""`
}

// Help is shown by berth config check --help.
func (configCheckCmd) Help() string {
	return "The flags are those of berth serve. The store is not opened."
}

func (c *configCheckCmd) Run(stdout io.Writer) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.hasUsers() {
		if _, err := c.loadUsers(); err != nil {
			return err
		}
	}
	if err := c.checkFiles(); err != nil {
		return err
	}
	for _, n := range c.sections().Notifications {
		if _, err := n.options(nil); err != nil {
			return fmt.Errorf("notifications to %s: %w", n.URL, err)
		}
	}
	fmt.Fprintln(stdout, "the configuration is valid")
	return nil
}

// configPrintCmd is berth config print.
type configPrintCmd struct {
	serveCmd `embed:""`
}

// Help is shown by berth config print --help.
func (configPrintCmd) Help() string {
	return "The flags are those of berth serve. The output is a file for --config; passwords are left out."
}

func (c *configPrintCmd) Run(stdout io.Writer, ctx *kong.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	root := &yaml.Node{Kind: yaml.MappingNode}
	add := func(name string, value *yaml.Node, source string) {
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: name}
		if value.Kind == yaml.ScalarNode {
			value.LineComment = source
		} else {
			key.HeadComment = source
		}
		root.Content = append(root.Content, key, value)
	}
	for _, flag := range ctx.Selected().Flags {
		if flag.Name == "config" || flag.Name == "help" {
			continue
		}
		value, err := flagValue(flag)
		if err != nil {
			return err
		}
		if value != nil {
			add(flag.Name, value, c.source(ctx, flag))
		}
	}
	for _, name := range sectionNames {
		if c.file != nil && c.file.keys[name] != nil {
			maskSecrets(c.file.keys[name])
			add(name, c.file.keys[name], "from "+c.file.name)
		}
	}
	out, err := yaml.Marshal(root)
	if err != nil {
		return err
	}
	_, err = stdout.Write(out)
	return err
}

// masked stands for a secret.
const masked = "********"

// maskSecrets replaces the values of headers, and passwords in URLs.
func maskSecrets(node *yaml.Node) {
	for _, item := range node.Content {
		maskSecrets(item)
	}
	if node.Kind != yaml.MappingNode {
		return
	}
	for key, value := range members(node) {
		switch key.Value {
		case "headers":
			for _, header := range members(value) {
				header.Value = masked
			}
		case "url":
			if u, err := url.Parse(value.Value); err == nil {
				value.Value = u.Redacted()
			}
		}
	}
}

// source says where the value of a flag comes from.
func (c *configPrintCmd) source(ctx *kong.Context, flag *kong.Flag) string {
	if slices.ContainsFunc(ctx.Path, func(p *kong.Path) bool { return p.Flag == flag && !p.Resolved }) {
		return "from the command line"
	}
	if name := fromEnvironment(flag); name != "" {
		return "from " + name
	}
	if c.file != nil && c.file.keys[flag.Name] != nil {
		return "from " + c.file.name
	}
	return "default"
}

// flagValue returns a flag's value, nil if it is not set. Passwords are replaced.
func flagValue(flag *kong.Flag) (*yaml.Node, error) {
	v := flag.Target.Interface()
	if flag.Target.IsZero() && !flag.HasDefault && flag.Target.Kind() != reflect.Bool {
		return nil, nil
	}
	switch value := v.(type) {
	case size:
		v = int64(value)
	case fmt.Stringer:
		v = strings.ToLower(value.String())
	case encoding.TextMarshaler:
		text, err := value.MarshalText()
		if err != nil {
			return nil, err
		}
		v = string(text)
	case []string:
		if flag.Name == "user" {
			var users []string
			for _, entry := range value {
				name, _, _ := strings.Cut(entry, ":")
				users = append(users, name+":"+masked)
			}
			v = users
		}
	}
	var node yaml.Node
	return &node, node.Encode(v)
}
