// SPDX-License-Identifier: Apache-2.0

// The configuration file of berth serve, and the environment.

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

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// envPrefix begins the names of the environment variables that set flags.
const envPrefix = "BERTH"

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
}

// sectionNames are the keys of sections.
var sectionNames = fieldNames(sections{})

// BeforeResolve reads the configuration file, for kong. Flags have precedence over the
// environment, and that over the file.
func (c *serveCmd) BeforeResolve(ctx *kong.Context, trace *kong.Path) error {
	i := slices.IndexFunc(trace.Flags, func(f *kong.Flag) bool { return f.Name == "config" })
	name, _ := ctx.FlagValue(trace.Flags[i]).(string)
	if name == "" || c.file != nil {
		return nil
	}
	file, err := readConfig(name, serveFlags(ctx))
	if err != nil {
		return err
	}
	c.file = file
	ctx.AddResolver(file)
	return nil
}

// serveFlags returns the names of the flags that a configuration file may set.
func serveFlags(ctx *kong.Context) []string {
	var names []string
	for _, command := range ctx.Model.Children {
		if command.Name != "serve" {
			continue
		}
		for _, flag := range command.Flags {
			if flag.Name != "config" {
				names = append(names, flag.Name)
			}
		}
	}
	return names
}

// readConfig reads a file whose keys are those of sections, or the names of flags.
func readConfig(name string, flags []string) (*configFile, error) {
	f := &configFile{name: name, keys: make(map[string]*yaml.Node)}
	root, err := f.read()
	if root == nil || err != nil { // an empty file, or a wrong one
		return f, err
	}
	if root.Kind != yaml.MappingNode {
		return nil, f.errorAt(root, "", errors.New("the file must consist of keys and values"))
	}
	known := append(slices.Clone(flags), sectionNames...)
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

// explain adds the line of the file to an error that kong has returned for a value.
func (f *configFile) explain(err error) error {
	if f == nil || err == nil {
		return err
	}
	for name, node := range f.keys {
		if rest, ok := strings.CutPrefix(err.Error(), "--"+name); ok {
			if i := strings.Index(rest, ": "); i >= 0 {
				return f.errorAt(node, name, errors.New(rest[i+2:]))
			}
		}
	}
	return err
}

// Validate implements [kong.Resolver].
func (f *configFile) Validate(*kong.Application) error { return nil }

// Resolve implements [kong.Resolver].
func (f *configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	node := f.keys[flag.Name]
	if node == nil || fromEnvironment(flag) != "" {
		return nil, nil
	}
	if node.Kind == yaml.ScalarNode {
		if flag.IsSlice() {
			return []any{node.Value}, nil
		}
		return node.Value, nil
	}
	var all []any
	if !flag.IsSlice() || node.Kind != yaml.SequenceNode {
		return nil, f.errorAt(node, flag.Name, errors.New("requires a single value"))
	}
	for _, item := range node.Content {
		if item.Kind != yaml.ScalarNode {
			return nil, f.errorAt(item, flag.Name, errors.New("requires a list of single values"))
		}
		all = append(all, item.Value)
	}
	return all, nil
}

// fromEnvironment returns the environment variable that sets the flag, "" if none does.
func fromEnvironment(flag *kong.Flag) string {
	for _, name := range flag.Envs {
		if _, ok := os.LookupEnv(name); ok {
			return name
		}
	}
	return ""
}

// kubernetesVariable matches the variables that Kubernetes sets for a service of the
// name "berth".
var kubernetesVariable = regexp.MustCompile(`^BERTH_(SERVICE_(HOST|PORT.*)|PORT(_\d+_.*)?)$`)

// unknownVariables returns a sentence for each variable in the environment that looks as
// if it set a flag, but sets none.
func unknownVariables(environ []string, flags []*kong.Flag) []string {
	var known, sentences []string
	for _, flag := range flags {
		known = append(known, flag.Envs...)
	}
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix+"_") || slices.Contains(known, name) || kubernetesVariable.MatchString(name) {
			continue
		}
		sentences = append(sentences, fmt.Sprintf("the environment variable %s has no effect%s", name, didYouMean(name, known)))
	}
	return sentences
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
