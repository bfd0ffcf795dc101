// SPDX-License-Identifier: Apache-2.0

// The configuration file of berth serve.

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// configFile is a configuration file: the values of flags, by their names, and sections
// that have no flag.
type configFile struct {
	name     string
	keys     map[string]*yaml.Node // by name
	sections sections
}

// sections are the parts of a configuration that are too large for flags.
type sections struct {
	Retention     []retentionRule    `yaml:"retention"`
	Quotas        []quotaRule        `yaml:"quotas"`
	Notifications []notificationRule `yaml:"notifications"`
	Mirrors       []mirrorRule       `yaml:"mirrors"`
}

// sectionNames are the keys of sections.
var sectionNames = fieldNames(sections{})

// setFromFile reads the configuration file, and sets the flags that neither the command
// line nor the environment sets.
func (c *serveCmd) setFromFile() (err error) {
	if c.Config == "" {
		return nil
	}
	if c.file, err = readConfig(c.Config); err != nil {
		return err
	}
	c.flags.VisitAll(func(f *pflag.Flag) {
		if node := c.file.keys[f.Name]; node != nil && !f.Changed && err == nil {
			err = c.file.set(f, node)
		}
	})
	return err
}

// set sets a flag to the value of a key.
func (f *configFile) set(flag *pflag.Flag, node *yaml.Node) error {
	items := []*yaml.Node{node}
	if _, list := flag.Value.(pflag.SliceValue); list && node.Kind == yaml.SequenceNode {
		items = node.Content
	}
	var values []string
	for _, item := range items {
		if item.Kind != yaml.ScalarNode {
			kind := "a single value"
			if node.Kind == yaml.SequenceNode && item != node {
				kind = "a list of single values"
			}
			return f.errorAt(item, flag.Name, errors.New("requires "+kind))
		}
		values = append(values, item.Value)
	}
	if err := setFlag(flag, f.name, values...); err != nil {
		return f.errorAt(node, flag.Name, err)
	}
	return nil
}

// readConfig reads a file whose keys are those of sections, or the names of flags of berth
// serve.
func readConfig(name string) (*configFile, error) {
	f := &configFile{name: name, keys: make(map[string]*yaml.Node)}
	root, err := f.read()
	if root == nil || err != nil { // an empty file, or a wrong one
		return f, err
	}
	if root.Kind != yaml.MappingNode {
		return nil, f.errorAt(root, "", errors.New("the file must consist of keys and values"))
	}
	known := append(flagNames(new(serveCmd).command().Flags()), sectionNames...)
	known = slices.DeleteFunc(known, func(name string) bool { return name == "config" || name == "help" })
	for key, value := range members(root) {
		if !slices.Contains(known, key.Value) {
			return nil, f.errorAt(key, "", unknownKey(key.Value, known))
		}
		if f.keys[key.Value] != nil {
			return nil, f.errorAt(key, "", fmt.Errorf("the key %q occurs twice", key.Value))
		}
		f.keys[key.Value] = value
	}
	return f, f.readSections()
}

// read returns the only document in the file, nil if the file is empty.
func (f *configFile) read() (*yaml.Node, error) {
	data, err := os.ReadFile(f.name)
	if err != nil {
		return nil, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := decoder.Decode(&doc); err == io.EOF {
		return nil, nil
	} else if err != nil {
		return nil, f.yamlError(err)
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, f.errorAt(&second, "", errors.New("the file has a second document"))
	case err != io.EOF:
		return nil, f.yamlError(err)
	}
	return doc.Content[0], nil
}

func (f *configFile) readSections() error {
	return cmp.Or(
		readSection(f, "retention", &f.sections.Retention),
		readSection(f, "quotas", &f.sections.Quotas),
		readSection(f, "notifications", &f.sections.Notifications),
		readSection(f, "mirrors", &f.sections.Mirrors),
	)
}

// readSection decodes a section, if the file has it, and checks its rules.
func readSection[T interface{ check() error }](f *configFile, name string, rules *[]T) error {
	node := f.keys[name]
	if node == nil {
		return nil
	}
	if err := f.decode(node, name, rules); err != nil {
		return err
	}
	for i, rule := range *rules {
		if err := rule.check(); err != nil {
			return f.errorAt(node.Content[i], name, err)
		}
	}
	return nil
}

// decode decodes a node into target, whose fields are the only keys that it may have.
func (f *configFile) decode(node *yaml.Node, where string, target any) error {
	if node, err := checkKeys(node, target); err != nil {
		return f.errorAt(node, where, err)
	}
	if err := node.Decode(target); err != nil {
		return f.yamlError(err)
	}
	return nil
}

// yamlLine begins the errors of package yaml.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

// yamlError says where in the file the first of package yaml's errors is.
func (f *configFile) yamlError(err error) error {
	text := err.Error()
	if many := (*yaml.TypeError)(nil); errors.As(err, &many) {
		text = many.Errors[0]
	}
	if strings.Contains(text, "mapping values are not allowed") {
		text += ` (a value that ends in a colon requires quotes: "mem:")`
	}
	if found := yamlLine.FindStringSubmatch(text); found != nil {
		return fmt.Errorf("%s:%s: %s", f.name, found[1], text[len(found[0]):])
	}
	return fmt.Errorf("%s: %s", f.name, strings.TrimPrefix(text, "yaml: "))
}

func (f *configFile) errorAt(node *yaml.Node, where string, err error) error {
	if where != "" {
		where += ": "
	}
	return fmt.Errorf("%s:%d: %s%w", f.name, node.Line, where, err)
}

// retentionPeriod is a time in days (30d), weeks (2w), or units of time.Duration.
type retentionPeriod time.Duration

func (p *retentionPeriod) UnmarshalText(text []byte) error {
	s := string(text)
	for unit, size := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(s, unit); ok {
			var n int64
			if _, err := fmt.Sscanf(number, "%d", &n); err != nil || fmt.Sprint(n) != number || n > int64(100*365*24*time.Hour/size) {
				return fmt.Errorf("%q is not a time such as 30d, 2w or 12h", s)
			}
			*p = retentionPeriod(time.Duration(n) * size)
			return nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a time such as 30d, 2w or 12h", s)
	}
	*p = retentionPeriod(d)
	return nil
}
