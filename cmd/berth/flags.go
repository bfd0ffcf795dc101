// SPDX-License-Identifier: Apache-2.0

// Flags: their values, and the environment.

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// size is a number of bytes, in a form like 4MiB or 1.5g.
type size int64

func (s *size) UnmarshalText(text []byte) error {
	n, err := units.RAMInBytes(string(text))
	if err == nil && n < 0 {
		err = fmt.Errorf("negative size %q", text)
	}
	*s = size(n)
	return err
}

// MarshalText returns the exact size.
func (s size) MarshalText() ([]byte, error) {
	unit := 0
	for ; s != 0 && s%1024 == 0 && unit < 4; unit++ {
		s /= 1024
	}
	if s == 0 {
		return nil, nil
	}
	return fmt.Append(nil, int64(s), []string{"", "KiB", "MiB", "GiB", "TiB"}[unit]), nil
}

// levelValue is a [pflag.Value].
type levelValue slog.Level

func (l *levelValue) Set(text string) error { return (*slog.Level)(l).UnmarshalText([]byte(text)) }
func (l *levelValue) String() string        { return strings.ToLower(slog.Level(*l).String()) }
func (*levelValue) Type() string            { return "level" }

// enumValue is a [pflag.Value]: one of several words.
type enumValue struct {
	value *string
	words []string
}

func (v enumValue) Set(text string) error {
	if !slices.Contains(v.words, text) {
		return notOneOf(text, v.words)
	}
	*v.value = text
	return nil
}
func (v enumValue) String() string { return *v.value }
func (enumValue) Type() string     { return "enum" }

func notOneOf(text string, words []string) error {
	return fmt.Errorf("%q is not one of %s", text, strings.Join(words, ", "))
}

// pathValue is a [pflag.Value]: the path of a file or folder, which becomes absolute.
type pathValue struct {
	path *string
	file bool // it must be a file that exists
}

func anyPath(path *string) pathValue      { return pathValue{path: path} }
func existingFile(path *string) pathValue { return pathValue{path: path, file: true} }

func (v pathValue) Set(text string) (err error) {
	if text == "" {
		return errors.New("a path is missing")
	}
	if rest, ok := strings.CutPrefix(text, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		text = filepath.Join(home, rest)
	}
	*v.path, err = filepath.Abs(text)
	return err
}
func (v pathValue) String() string { return *v.path }
func (pathValue) Type() string     { return "path" }

// checkFile checks the file that a flag names. It is no part of Set, so that a flag can be
// completed after a file that does not exist yet.
func checkFile(f *pflag.Flag) error {
	v, ok := f.Value.(pathValue)
	if !ok || !v.file {
		return nil
	}
	info, err := os.Stat(*v.path)
	if err == nil && info.IsDir() {
		err = &fs.PathError{Op: "open", Path: *v.path, Err: errors.New("is a directory")}
	}
	return err
}

// setFlag sets a flag to values from source, and checks the file that it names. More than
// one are for a [pflag.SliceValue].
func setFlag(f *pflag.Flag, source string, values ...string) error {
	var err error
	if list, ok := f.Value.(pflag.SliceValue); ok {
		err = list.Replace(values)
	} else {
		err = f.Value.Set(normalize(f, values[0]))
	}
	if err != nil {
		return wrongValue(f, values[0], err)
	}
	f.Changed = true
	f.Annotations[sourceAnnotation] = []string{source}
	return checkFile(f)
}

// sourceAnnotation is the key of a flag's annotation with the source of its value,
// other than the command line.
const sourceAnnotation = "berth_source"

// normalize returns the value that pflag knows for another one of the same meaning.
func normalize(f *pflag.Flag, value string) string {
	if f.Value.Type() == "bool" {
		switch strings.ToLower(value) {
		case "yes", "on":
			return "true"
		case "no", "off":
			return "false"
		}
	}
	return value
}

// wrongValue returns a clearer error than err for a wrong value of a flag.
func wrongValue(f *pflag.Flag, value string, err error) error {
	switch f.Value.Type() {
	case "bool":
		return fmt.Errorf("%q is neither true nor false", value)
	case "int":
		return fmt.Errorf("%q is not a whole number", value)
	case "duration":
		return fmt.Errorf("%q is not a time such as 30s, 5m or 1h30m", value)
	}
	return err
}

// hasDefault reports whether a flag has a default value worth mention.
func hasDefault(f *pflag.Flag) bool {
	return !slices.Contains([]string{"", "0", "0s", "[]", "false"}, f.DefValue)
}

// envPrefix begins the names of the environment variables that set flags.
const envPrefix = "BERTH_"

// variable returns the name of the environment variable that sets a flag.
func variable(f *pflag.Flag) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// setFromEnvironment sets the flags that the command line does not set.
func setFromEnvironment(flags *pflag.FlagSet) (err error) {
	flags.VisitAll(func(f *pflag.Flag) {
		value, ok := os.LookupEnv(variable(f))
		switch name := "--" + f.Name; {
		case f.Name == "help":
		case f.Changed:
			err = cmp.Or(err, addPrefix(name, checkFile(f)))
		case ok:
			err = cmp.Or(err, addPrefix(variable(f), setFlag(f, variable(f), value)))
		}
	})
	return err
}

// addPrefix returns err, if it is one, with a prefix.
func addPrefix(prefix string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", prefix, err)
	}
	return err
}

// kubernetesVariable matches the variables that Kubernetes sets for a service of the
// name "berth".
var kubernetesVariable = regexp.MustCompile(`^BERTH_(SERVICE_(HOST|PORT.*)|PORT(_\d+_.*)?)$`)

// unknownVariables returns a sentence for each variable in the environment that looks as
// if it set a flag, but sets none.
func unknownVariables(environ []string, flags *pflag.FlagSet) []string {
	var known, sentences []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			known = append(known, variable(f))
		}
	})
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(known, name) || kubernetesVariable.MatchString(name) {
			continue
		}
		sentences = append(sentences, fmt.Sprintf("the environment variable %s has no effect%s", name, didYouMean(name, known)))
	}
	return sentences
}
