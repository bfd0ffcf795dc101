// SPDX-License-Identifier: Apache-2.0

// Requests to Google and Azure, and responses that their emulators, and MinIO, do not
// give.

package objects_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// responder responds to all requests alike, and records them.
type responder struct {
	*httptest.Server
	status int
	header http.Header
	body   string

	mu       sync.Mutex // guards the fields below
	requests []string
	bodies   []string // instead of body, one for each request
}

func (s *responder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	s.mu.Lock()
	s.requests = append(s.requests, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("If-Match")+r.Header.Get("If-None-Match")))
	body := s.body
	if len(s.bodies) > 0 {
		body, s.bodies = s.bodies[0], s.bodies[1:]
	}
	s.mu.Unlock()
	for k, v := range s.header {
		w.Header()[k] = v
	}
	w.WriteHeader(s.status)
	io.WriteString(w, body)
}

// take returns the requests since its last call.
func (s *responder) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests
	s.requests = nil
	return r
}

func newResponder(t *testing.T) (*responder, *http.Client) {
	s := new(responder)
	s.Server = httptest.NewServer(s)
	transport := new(http.Transport)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.Server.Close()
	})
	return s, &http.Client{Transport: transport}
}

func google(t *testing.T) (objects.Bucket, *responder) {
	s, _ := newResponder(t)
	t.Setenv("STORAGE_EMULATOR_HOST", s.Listener.Addr().String())
	return open(t, "gs://b"), s
}

func azure(t *testing.T) (objects.Bucket, *responder) {
	s, hc := newResponder(t)
	opts := new(container.ClientOptions)
	opts.ClientOptions = policy.ClientOptions{Transport: hc}
	client, err := container.NewClientWithNoCredential(s.URL+"/account/b", opts)
	qt.Assert(t, qt.IsNil(err))
	return objects.NewAzure(client), s
}

// writes are all kinds of writes.
func writes(b objects.Bucket) map[string]func() error {
	ctx := context.Background()
	put := func(c objects.Condition) func() error {
		return func() error { _, err := b.Put(ctx, "k", []byte("bytes"), c); return err }
	}
	return map[string]func() error{
		"put":     put(objects.Condition{}),
		"create":  put(objects.Condition{Absent: true}),
		"swap":    put(objects.Condition{Version: "12"}),
		"copy":    func() error { return b.Copy(ctx, "to", "k", 5) },
		"delete":  func() error { return b.Delete(ctx, "k", "") },
		"compare": func() error { return b.Delete(ctx, "k", "12") },
	}
}

// reads are all kinds of reads.
func reads(b objects.Bucket) map[string]func() error {
	ctx := context.Background()
	return map[string]func() error{
		"get":  func() error { _, err := b.Get(ctx, "k", 0, 10); return err },
		"stat": func() error { _, err := b.Stat(ctx, "k"); return err },
		"list": func() error { _, _, err := b.List(ctx, objects.ListQuery{}, 10); return err },
	}
}

// TestSendsOnce checks that writes are not retried, and their conditions.
func TestSendsOnce(t *testing.T) {
	for name, test := range map[string]struct {
		open  func(*testing.T) (objects.Bucket, *responder)
		wants map[string]string
	}{
		"google": {google, map[string]string{
			"put":     "uploadType=multipart",
			"create":  "ifGenerationMatch=0",
			"swap":    "ifGenerationMatch=12",
			"copy":    "rewriteTo",
			"delete":  "DELETE",
			"compare": "ifGenerationMatch=12",
		}},
		"azure": {azure, map[string]string{
			"put":     "PUT /account/b/k",
			"create":  "PUT /account/b/k *",
			"swap":    "PUT /account/b/k 12",
			"copy":    "PUT /account/b/to",
			"delete":  "DELETE /account/b/k",
			"compare": "DELETE /account/b/k 12",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b, s := test.open(t)
			s.status = http.StatusServiceUnavailable
			for kind, f := range writes(b) {
				err := f()
				qt.Check(t, qt.IsNotNil(err), qt.Commentf(kind))
				qt.Check(t, qt.Not(qt.ErrorIs(err, objects.ErrRejected)))
				requests := s.take()
				if len(requests) != 1 || !strings.Contains(requests[0], test.wants[kind]) {
					t.Errorf("%s: requests %q; want one with %s", kind, requests, test.wants[kind])
				}
			}
		})
	}
}

// TestS3Endpoint checks where requests go to.
func TestS3Endpoint(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/missing")
	s, _ := newResponder(t)
	s.status = http.StatusForbidden
	for _, test := range []struct{ path, parameters, want string }{
		{"", "region=eu-west-1&use_path_style=true", "HEAD /b/k"},
		{"", "use_path_style=true", "HEAD /b/k"}, // no region
		{"", "region=eu-west-1&s3ForcePathStyle=true", "HEAD /b/k"},
		{"", "region=eu-west-1&hostname_immutable=true", "HEAD /b/k"},
		{"/base", "region=eu-west-1&use_path_style=true", "HEAD /base/b/k"},
	} {
		b := open(t, "s3://b?anonymous=true&"+test.parameters+"&endpoint="+s.URL+test.path)
		_, err := b.Stat(context.Background(), "k")
		qt.Check(t, qt.ErrorIs(err, objects.ErrRejected), qt.Commentf(test.parameters))
		qt.Check(t, qt.DeepEquals(s.take(), []string{test.want}), qt.Commentf(test.parameters))
	}
}

// TestS3Full uses a server that has no room, as MinIO says it.
func TestS3Full(t *testing.T) {
	s, _ := newResponder(t)
	s.status = http.StatusInsufficientStorage
	s.body = "<Error><Code>XMinioStorageFull</Code></Error>"
	b := open(t, "s3://b?region=us-east-1&anonymous=true&use_path_style=true&endpoint="+s.URL)
	_, err := b.Put(context.Background(), "k", []byte("bytes"), objects.Condition{})
	qt.Assert(t, qt.ErrorIs(err, objects.ErrFull))
}

// TestExplain checks sentences about error responses, and about none.
func TestExplain(t *testing.T) {
	for name, test := range map[string]struct {
		open func(*testing.T) (objects.Bucket, *responder)
		code string
	}{
		"google": {google, "403: no"},
		"azure":  {azure, "403: AuthorizationFailure"},
	} {
		t.Run(name, func(t *testing.T) {
			b, s := test.open(t)
			explained := func() string {
				_, err := b.Put(context.Background(), "k", []byte("bytes"), objects.Condition{})
				qt.Assert(t, qt.IsNotNil(err))
				return objects.Explain(b, err)
			}
			s.status = http.StatusForbidden
			s.header = http.Header{"X-Ms-Error-Code": {"AuthorizationFailure"}}
			s.body = `{"error":{"code":403,"message":"no"}}`
			qt.Check(t, qt.Equals(explained(), "the bucket rejects the request: "+test.code))
			s.status = http.StatusNotFound
			s.header = http.Header{"X-Ms-Error-Code": {"ContainerNotFound"}}
			s.body = ""
			qt.Check(t, qt.Equals(explained(), "the bucket does not exist"))
			s.Server.Close()
			qt.Check(t, qt.IsTrue(strings.HasPrefix(explained(), "can't reach "+s.URL+": ")))
		})
	}
}

// TestErrors checks the meaning of error responses.
func TestErrors(t *testing.T) {
	ctx := context.Background()
	for name, open := range map[string]func(*testing.T) (objects.Bucket, *responder){"google": google, "azure": azure} {
		t.Run(name, func(t *testing.T) {
			b, s := open(t)
			respond := func(status int, code string) {
				s.status = status
				s.header = http.Header{"X-Ms-Error-Code": {code}}
			}
			respond(http.StatusPreconditionFailed, "ConditionNotMet")
			for kind, f := range writes(b) {
				if kind == "create" || kind == "swap" || kind == "compare" {
					qt.Check(t, qt.ErrorIs(f(), objects.ErrCondition), qt.Commentf(kind))
				}
			}
			respond(http.StatusForbidden, "AuthorizationFailure")
			for kind, f := range writes(b) {
				qt.Check(t, qt.ErrorIs(f(), objects.ErrRejected), qt.Commentf(kind))
			}
			for kind, f := range reads(b) {
				qt.Check(t, qt.ErrorIs(f(), objects.ErrRejected), qt.Commentf(kind))
			}
			respond(http.StatusNotFound, "ContainerNotFound")
			for kind, f := range reads(b) {
				qt.Check(t, qt.ErrorIs(f(), objects.ErrRejected), qt.Commentf(kind))
			}
			for kind, f := range writes(b) {
				qt.Check(t, qt.ErrorIs(f(), objects.ErrRejected), qt.Commentf(kind))
			}

			// The bucket is known to exist after a success, which tells the version.
			s.body = `{"generation":"77"}`
			respond(http.StatusOK, "")
			if name == "azure" {
				respond(http.StatusCreated, "")
			}
			s.header.Set("ETag", "77")
			version, err := b.Put(ctx, "k", nil, objects.Condition{})
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(version, "77"))

			respond(http.StatusNotFound, "BlobNotFound")
			qt.Check(t, qt.ErrorIs(reads(b)["get"](), objects.ErrNotExist))
			qt.Check(t, qt.ErrorIs(reads(b)["stat"](), objects.ErrNotExist))
			qt.Check(t, qt.ErrorIs(writes(b)["copy"](), objects.ErrNotExist))
			qt.Check(t, qt.ErrorIs(writes(b)["swap"](), objects.ErrCondition))
			qt.Check(t, qt.IsNil(writes(b)["delete"]()))
			qt.Check(t, qt.IsNil(writes(b)["compare"]()))
		})
	}
}

// TestGoogleErrors checks the meaning of errors in Google's formats.
func TestGoogleErrors(t *testing.T) {
	const limited = `{"error":{"code":403,"message":"slow down","errors":[{"reason":"rateLimitExceeded"}]}}`
	for _, test := range []struct {
		name, kind string
		status     int
		body       string
		rejected   bool
		explained  string
	}{
		{"JSON", "stat", 403, `{"error":{"code":403,"message":"no"}}`, true, "the bucket rejects the request: 403: no"},
		{"XML", "get", 403, `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access denied.</Message></Error>`, true, "the bucket rejects the request: 403: Access denied"},
		{"text", "stat", 401, "Anonymous\n", true, "the bucket rejects the request: 401: Anonymous"},
		{"empty", "stat", 401, "", true, "the bucket rejects the request: 401: Unauthorized"},
		{"no bucket", "get", 404, `<Error><Code>NoSuchBucket</Code></Error>`, true, "the bucket does not exist"},
		{"limited", "stat", 403, limited, false, "the bucket rejects the request: 403: slow down"},
		{"busy", "stat", 429, "", false, "the bucket rejects the request: 429: Too Many Requests"},
		{"down", "get", 503, "", false, "the bucket rejects the request: 503: Service Unavailable"},
		{"no JSON", "stat", 200, "<html>", false, "can't use the bucket: response of Google Cloud Storage: invalid character '<' looking for beginning of value"},
		{"no facts", "get", 200, "bytes", false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, s := google(t)
			s.status, s.body = test.status, test.body
			err := reads(b)[test.kind]()
			qt.Assert(t, qt.IsNotNil(err))
			qt.Check(t, qt.Equals(errors.Is(err, objects.ErrRejected), test.rejected))
			if test.explained != "" {
				qt.Check(t, qt.Equals(objects.Explain(b, err), test.explained))
			}
		})
	}
}

// TestGoogleCopy copies an object for which Google needs several requests.
func TestGoogleCopy(t *testing.T) {
	b, s := google(t)
	s.status = 200
	s.bodies = []string{`{"done":false,"rewriteToken":"t/1"}`, `{"rewriteToken":"t/2"}`, `{"done":true}`}
	qt.Assert(t, qt.IsNil(b.Copy(context.Background(), "a/to", "a/from", 5)))
	const request = "POST /storage/v1/b/b/o/a%2Ffrom/rewriteTo/b/b/o/a%2Fto?fields=done%2CrewriteToken"
	qt.Check(t, qt.DeepEquals(s.take(), []string{request, request + "&rewriteToken=t%2F1", request + "&rewriteToken=t%2F2"}))
	s.body = `{"done":false}`
	qt.Check(t, qt.ErrorMatches(b.Copy(context.Background(), "a/to", "a/from", 5), ".*neither completed.*"))
}
