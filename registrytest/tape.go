// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Tape is a conversation of a client with a registry, recorded once by [Record], and
// replayed in tests by [Replay] without a network. [OpenTape] does one or the other.
//
//	tape := registrytest.OpenTape(t, "https://ghcr.io", "testdata/pull", nil)
//	client := &http.Client{Transport: tape}
//	// ... the client pulls tape.Host + "/app:v1" ...
//
// A Tape serves clients in both ways in which they can be directed at it:
//
//   - It is an [http.RoundTripper] for clients in Go.
//   - It is an [http.Handler] for other programs, which use it as the registry: a
//     proxy when it records. In responses, it replaces the registry's URL by its
//     own, and the URLs of other hosts, such as token servers and storage, by URLs
//     below /_tape/, so that the program's requests for those are recorded and
//     replayed too.
//
// Either kind of client can replay the tape of the other. Middleware such as [Faults]
// and [Journal] goes in front of a Tape's handler, also by [Transport]; or between a
// Tape and the registry that it records, by [TapeOptions].Transport.
//
// # Files
//
// A tape is a folder: an OCI image layout with the manifests and blobs that were
// pushed or pulled, each once, and tape.txt, a list of requests and responses. It is
// text, and sorted by URL; only equal requests are in the order of time. So a tape
// recorded anew shows up in a diff only where the conversation differs. The tags of the layout are those of the registry; with
// several repositories, their names come first, as in "repo:tag".
//
// Times, the IDs of uploads and the ports of loopback addresses, which differ each
// time, are replaced. Of responses, the body and the headers that clients of
// registries use are recorded, except the body of a redirect. Registries are asked for
// responses that are not compressed. Errors and bodies that break off are recorded too.
// When a client closes a body early, the rest is still recorded.
//
// Git must not convert the line ends of tapes: .gitattributes should have a line like
// "testdata/** -text".
//
// # Secrets
//
// No secret is written to a tape; names of users are. Credentials are reduced to their
// scheme, cookies and unknown headers left out. The values of all parameters of queries and forms are
// replaced by "redacted" except those that the specs of registries and tokens define,
// and so are tokens and passwords in JSON. A secret that was seen in one of these
// places is replaced wherever else it occurs. In content, which can't change, it makes
// the recording fail. Passwords that are shorter than 8 bytes, or a word of the protocol
// such as "password", are replaced only in their places. Compressed content is not
// searched.
//
// # Matching
//
// A request is replayed if its method, URL, body, and relevant headers are those of a
// recorded one: Accept, Content-Range, Content-Type, Range, and those of conditions.
// Of credentials, only the scheme is compared, so that any password is
// accepted; of parameters that were redacted, only the name. Requests that
// are equal get their responses in the order of the recording; all others can be sent
// in any order, and concurrently.
//
// If no request matches, the test fails with those that are most similar, and the
// client gets an error, or 501. When the test ends, exchanges that were not replayed
// make it fail too, except those without a response; see [TapeOptions].Repeat.
//
// A Tape is safe for concurrent use. A replay starts no goroutines and knows no time, so
// that it also works in the bubbles of [testing/synctest].
type Tape struct {
	// Host is the registry's host and port, for references of clients whose
	// transport is the Tape. When a tape is replayed, a port on loopback is that
	// of the tape.
	Host string

	tb       testing.TB
	opts     TapeOptions
	registry tapeOrigin
	mask     *masker
	recorder *tapeRecorder // or:
	player   *tapePlayer

	mu    sync.Mutex
	ended bool // guarded by mu: the test has ended
}

// TapeOptions are the options of a [Tape].
type TapeOptions struct {
	// Transport sends the requests that are recorded. It is
	// http.DefaultTransport if it is nil.
	Transport http.RoundTripper

	// Secrets are values that the tape must not contain, in addition to those that
	// are recognized, for example a password in a path. They must have at least 4
	// bytes. A replay needs them too.
	Secrets []string

	// Repeat lets requests of a replay be repeated or left out: when the recorded
	// responses are used up, the last of them is sent again, and exchanges that
	// were not replayed are only logged. If a request is on the tape only with or
	// only without credentials, they are not compared. It is for clients that
	// retry, or whose concurrent requests depend on chance.
	Repeat bool
}

// recordVariable is the environment variable that makes OpenTape record.
const recordVariable = "REGISTRYTEST_RECORD"

// OpenTape replays the tape in the folder dir; or, if the environment variable
// REGISTRYTEST_RECORD is 1, records it anew:
//
//	REGISTRYTEST_RECORD=1 go test -run TestPull .
//
// The arguments are those of [Record].
func OpenTape(tb testing.TB, upstream, dir string, opts *TapeOptions) *Tape {
	tb.Helper()
	value := os.Getenv(recordVariable)
	record, err := strconv.ParseBool(value)
	if value != "" && err != nil {
		tb.Fatalf("registrytest: %s is %q: it must be 1 or 0", recordVariable, value)
	}
	if record {
		return Record(tb, upstream, dir, opts)
	}
	if _, err := os.Stat(filepath.Join(dir, tapeFile)); errors.Is(err, fs.ErrNotExist) {
		tb.Fatalf("registrytest: there is no tape in %s: record it with %s=1", dir, recordVariable)
	}
	return Replay(tb, os.DirFS(dir), opts)
}

// Record returns a Tape that sends requests to a registry and records them. upstream
// is the registry's URL, such as "https://ghcr.io". When the test ends, the tape
// is written to the folder dir, instead of the tape that may be there. If the test
// has failed, nothing is written.
//
// If opts is nil, the zero TapeOptions are used.
func Record(tb testing.TB, upstream, dir string, opts *TapeOptions) *Tape {
	tb.Helper()
	o, err := parseOrigin(upstream)
	if err != nil {
		tb.Fatalf("registrytest: the upstream %q of a tape is not like https://registry.example: %v", upstream, err)
	}
	t := newTape(tb, o, opts)
	t.Host = o.host
	t.mask.host(o.host)
	t.recorder, err = newTapeRecorder(t, dir)
	if err != nil {
		tb.Fatalf("registrytest: %v", err)
	}
	tb.Cleanup(func() {
		t.end()
		t.recorder.close()
	})
	return t
}

// Replay returns a Tape that replays the one in the root of fsys.
//
// If opts is nil, the zero TapeOptions are used.
func Replay(tb testing.TB, fsys fs.FS, opts *TapeOptions) *Tape {
	tb.Helper()
	player, o, err := newTapePlayer(fsys)
	if err != nil {
		tb.Fatalf("registrytest: %v", err)
	}
	t := newTape(tb, o, opts)
	t.Host = o.host
	t.player = player
	t.mask.replays = true
	tb.Cleanup(func() {
		t.end()
		t.reportUnused()
	})
	return t
}

func newTape(tb testing.TB, registry tapeOrigin, opts *TapeOptions) *Tape {
	tb.Helper()
	t := &Tape{tb: tb, registry: registry, mask: newMasker()}
	if opts != nil {
		t.opts = *opts
	}
	for i, secret := range t.opts.Secrets {
		if len(secret) < minOption {
			tb.Fatalf("registrytest: TapeOptions.Secrets[%d] has less than %d bytes: it could occur anywhere", i, minOption)
		}
		t.mask.add(secret, "one of TapeOptions.Secrets")
	}
	return t
}

var errTapeEnded = errors.New("registrytest: the test of this tape has ended")

// RoundTrip sends a request and records it, or replays its response.
func (t *Tape) RoundTrip(req *http.Request) (*http.Response, error) {
	t.mu.Lock()
	ended := t.ended
	t.mu.Unlock()
	err := req.Context().Err()
	if ended {
		err = errTapeEnded
	}
	switch {
	case err != nil:
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	case t.recorder != nil:
		return t.recorder.roundTrip(req)
	}
	return t.replay(req)
}

func (t *Tape) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
}

// errorf makes the test fail, unless it has ended.
func (t *Tape) errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.tb.Errorf(format, args...)
	}
}

// tapeOrigin is the beginning of a URL.
type tapeOrigin struct{ scheme, host string }

func (o tapeOrigin) String() string { return o.scheme + "://" + o.host }

// parseOrigin parses a URL that has no path, query and user.
func parseOrigin(s string) (tapeOrigin, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return tapeOrigin{}, errors.New("it is not a URL") // err may contain a password
	case u.Scheme != "http" && u.Scheme != "https":
		return tapeOrigin{}, errors.New("the scheme must be http or https")
	case u.Host == "":
		return tapeOrigin{}, errors.New("it has no host")
	case u.User != nil:
		return tapeOrigin{}, errors.New("it has a user")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return tapeOrigin{}, errors.New("it has a path")
	}
	return tapeOrigin{u.Scheme, strings.TrimSuffix(u.Host, map[string]string{"http": ":80", "https": ":443"}[u.Scheme])}, nil
}

// isLoopback reports whether a host is on loopback and has a port, which a test
// gets from the system.
func isLoopback(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil || port == "" {
		return false
	}
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// errNotOnTape is the error of a request that is not on the tape.
type errNotOnTape struct{ text string }

func (e *errNotOnTape) Error() string { return fmt.Sprintf("registrytest: %s", e.text) }
