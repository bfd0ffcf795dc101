// SPDX-License-Identifier: Apache-2.0

// Command berth config.

package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// configCommand returns berth config.
func configCommand() *cobra.Command {
	var checked, printed serveCmd
	cmd := newCommand("config", "Check or print a server's configuration.", "", nil)
	cmd.AddCommand(
		checked.newCommand("check", "Check a configuration, with the files that it names.",
			"The flags are those of berth serve. The store is not opened.", checked.checkConfig),
		printed.newCommand("print", "Print a configuration as YAML, and where each value comes from.",
			"The flags are those of berth serve. The output is a file for --config; passwords are left out.", printed.printConfig),
	)
	return cmd
}

func (c *serveCmd) checkConfig(stdout io.Writer, _ logOutput) error {
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
	if _, err := c.upstreams(); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "the configuration is valid")
	return nil
}

func (c *serveCmd) printConfig(stdout io.Writer, _ logOutput) error {
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
	c.flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" && (f.Changed || hasDefault(f) || f.Value.Type() == "bool") {
			add(f.Name, flagValue(f), sourceOf(f))
		}
	})
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

// sourceOf says where the value of a flag comes from.
func sourceOf(f *pflag.Flag) string {
	switch source := f.Annotations[sourceAnnotation]; {
	case !f.Changed:
		return "default"
	case source == nil:
		return "from the command line"
	default:
		return "from " + source[0]
	}
}

// flagValue returns a flag's value. Passwords are replaced.
func flagValue(f *pflag.Flag) *yaml.Node {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		node := &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range list.GetSlice() {
			if f.Name == "user" {
				name, _, _ := strings.Cut(item, ":")
				item = name + ":" + masked
			}
			node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: item})
		}
		return node
	}
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: f.Value.String()}
	switch t := f.Value.Type(); t {
	case "bool", "int":
		node.Tag = "!!" + t
	case "duration":
		node.Value = shortTime(node.Value)
	}
	return node
}
