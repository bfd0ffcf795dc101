// SPDX-License-Identifier: Apache-2.0

// Opening a bucket of Google Cloud Storage, and its credentials.

package objects

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/compute/metadata"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// googleScope is what tokens are good for: reads, writes, and signatures of URLs.
const googleScope = "https://www.googleapis.com/auth/cloud-platform"

// OpenGCS opens the bucket of a URL such as gs://name, with the parameters of
// gocloud.dev/blob/gcsblob: anonymous, access_id, private_key_path and
// universe_domain. It uses Application Default Credentials or, if the environment
// variable STORAGE_EMULATOR_HOST names an emulator, none.
func OpenGCS(ctx context.Context, u *url.URL) (Bucket, error) {
	if u.Host == "" {
		return nil, errors.New("objects: the URL of a bucket of Google has no name")
	}
	q := u.Query()
	anonymous, err := takeBool(q, "anonymous")
	if err != nil {
		return nil, err
	}
	accessID := take(q, "access_id")
	if accessID == "-" {
		anonymous, accessID = true, ""
	}
	universe := take(q, "universe_domain")
	ownKey := q.Has("private_key_path") // an empty one means that Google signs
	var key []byte
	if path := take(q, "private_key_path"); path != "" {
		if key, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("objects: %w", err)
		}
	}
	q.Del("private_key_path")
	if err := rejectUnknown(q); err != nil {
		return nil, err
	}

	signer := &googleSigner{email: accessID, universe: universe}
	var tokens oauth2.TokenSource
	if !anonymous && os.Getenv(emulatorVariable) == "" {
		found, err := findGoogleCredentials(ctx, universe)
		if err != nil {
			return nil, fmt.Errorf("objects: no credentials for Google Cloud Storage: %w", err)
		}
		tokens, universe = found.TokenSource, found.universe
		signer.universe = universe
		if accessID == "" || accessID == found.email {
			signer.email = found.email
			if !ownKey {
				key = found.key
			}
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	transport.MaxIdleConns = 0 // no limit but that per host
	transport.MaxIdleConnsPerHost = maxIdleConns
	b := newGoogle(&http.Client{Transport: transport}, u.Host, googleEndpoint(universe))
	b.close = transport.CloseIdleConnections
	b.tokens = tokens
	if signer.email != "" && (key != nil || tokens != nil) {
		if signer.key, err = parsePrivateKey(key); err != nil {
			return nil, err
		}
		b.signer = signer
	}
	return b, nil
}

// emulatorVariable is the environment variable of the address of an emulator.
const emulatorVariable = "STORAGE_EMULATOR_HOST"

// googleEndpoint returns the URL of the API, "" for Google's own universe.
func googleEndpoint(universe string) string {
	if host := os.Getenv(emulatorVariable); strings.Contains(host, "://") {
		return strings.TrimRight(host, "/")
	} else if host != "" {
		return "http://" + host
	}
	return "https://storage." + cmp.Or(universe, "googleapis.com")
}

// googleCredentials are credentials, and what they say about themselves.
type googleCredentials struct {
	oauth2.TokenSource
	universe string
	email    string // of the service account that signs URLs, "" for none
	key      []byte // its private key in PEM, nil for none
}

// findGoogleCredentials finds the Application Default Credentials.
func findGoogleCredentials(ctx context.Context, universe string) (*googleCredentials, error) {
	// The tokens are refreshed when ctx has ended.
	ctx = context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, &http.Client{Timeout: 30 * time.Second})
	found, err := google.FindDefaultCredentialsWithParams(ctx, google.CredentialsParams{
		Scopes:         []string{googleScope},
		UniverseDomain: universe,
	})
	if err != nil {
		return nil, err
	}
	c := &googleCredentials{TokenSource: found.TokenSource, universe: universe}
	if c.universe, err = found.GetUniverseDomain(); err != nil {
		return nil, err
	}
	var file struct {
		Email string `json:"client_email"`
		Key   string `json:"private_key"`
		URL   string `json:"service_account_impersonation_url"`
	}
	if len(found.JSON) > 0 {
		if err := json.Unmarshal(found.JSON, &file); err != nil {
			return nil, err
		}
	}
	c.email = file.Email
	if file.Key != "" {
		c.key = []byte(file.Key)
	}
	if _, account, ok := strings.Cut(file.URL, "/serviceAccounts/"); ok && c.email == "" {
		c.email, _, _ = strings.Cut(account, ":")
	}
	if c.email == "" && metadata.OnGCE() {
		c.email, _ = metadata.EmailWithContext(ctx, "") // without it, URLs are not signed
	}
	return c, nil
}

// authorize adds a token to a request, if b has any. The library that fetches tokens
// does not know of the request's context.
func (b *googleBucket) authorize(req *http.Request) error {
	if b.tokens == nil {
		return nil
	}
	type result struct {
		token *oauth2.Token
		err   error
	}
	fetched := make(chan result, 1)
	go func() {
		token, err := b.tokens.Token()
		fetched <- result{token, err}
	}()
	select {
	case r := <-fetched:
		if r.err != nil {
			return fmt.Errorf("objects: %w: %w", errGoogleToken, r.err)
		}
		r.token.SetAuthHeader(req)
		return nil
	case <-req.Context().Done():
		return fmt.Errorf("objects: %w: %w", errGoogleToken, req.Context().Err())
	}
}

var errGoogleToken = errors.New("no token for Google Cloud Storage")

// takeBool removes a parameter from q, and returns its value, by default false.
func takeBool(q url.Values, name string) (bool, error) {
	s := take(q, name)
	if s == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("objects: invalid value for %s: %q", name, s)
	}
	return v, nil
}

// rejectUnknown returns an error if there are parameters that nobody has taken.
func rejectUnknown(q url.Values) error {
	for name := range q {
		return fmt.Errorf("objects: unknown parameter %q in the URL of a bucket", name)
	}
	return nil
}
