// SPDX-License-Identifier: Apache-2.0

// Opening a bucket of S3, or of a server that is compatible with it.

package objects

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// s3Bucket is a Bucket in S3. Each of its requests is sent once: the SDK does not
// retry, and net/http sends a PUT, a POST or a DELETE again only if it knows that
// the server has handled none of it: it has written nothing to a connection that
// was closed while idle or, in HTTP/2, the server has said so. (It would replay a
// request with the header Idempotency-Key, which S3 doesn't have.) A GET or a HEAD
// may be sent again.
type s3Bucket struct {
	client     *s3.Client
	name       string
	encryption s3Encryption
	close      func() // idle connections, if they are the bucket's own

	// seen is the Unix time in seconds of a response that showed that the bucket
	// exists: see missing.
	seen atomic.Int64

	unfinished unfinished
}

// s3Encryption says how objects are encrypted at rest.
type s3Encryption struct {
	kind types.ServerSideEncryption
	key  *string
}

var _ Bucket = (*s3Bucket)(nil)

// maxIdleConns is the number of connections that are kept open for later requests.
// The SDK's default, 10, makes hundreds of concurrent requests dial anew each time.
const maxIdleConns = 256

// OpenS3 opens the bucket of a URL such as s3://name?region=eu-west-1, with the
// parameters of gocloud.dev/blob/s3blob, except rate_limiter_capacity: there are no
// retries to limit. It makes no request.
func OpenS3(ctx context.Context, u *url.URL) (Bucket, error) {
	if u.Host == "" {
		return nil, errors.New("objects: the URL of an S3 bucket has no name")
	}
	q := u.Query()
	b := &s3Bucket{name: u.Host}
	b.unfinished.init()
	if v := take(q, "ssetype"); v != "" {
		if b.encryption.kind = encryptionOf(v); b.encryption.kind == "" {
			return nil, fmt.Errorf("objects: invalid value for ssetype: %q", v)
		}
	}
	if v := take(q, "kmskeyid"); v != "" {
		b.encryption.key = &v
	}
	var opts []func(*s3.Options)
	for _, p := range []struct {
		name string
		set  func(o *s3.Options, v bool)
	}{
		{"accelerate", func(o *s3.Options, v bool) { o.UseAccelerate = v }},
		{"disable_https", func(o *s3.Options, v bool) { o.EndpointOptions.DisableHTTPS = v }},
		{"use_path_style", func(o *s3.Options, v bool) { o.UsePathStyle = v }},
		{"s3ForcePathStyle", func(o *s3.Options, v bool) { o.UsePathStyle = v }},
		{"hostname_immutable", func(o *s3.Options, v bool) { o.UsePathStyle = o.UsePathStyle || v }},
	} {
		s := take(q, p.name)
		if s == "" {
			continue
		}
		v, err := strconv.ParseBool(s)
		if err != nil {
			return nil, fmt.Errorf("objects: invalid value for %s: %q", p.name, s)
		}
		opts = append(opts, func(o *s3.Options) { p.set(o, v) })
	}
	if e := take(q, "endpoint"); e != "" {
		if !strings.HasPrefix(e, "http://") && !strings.HasPrefix(e, "https://") {
			return nil, fmt.Errorf("objects: the endpoint %q is no URL: it must begin with http:// or https://", e)
		}
		opts = append(opts, func(o *s3.Options) {
			o.BaseEndpoint = &e
			o.Region = cmp.Or(o.Region, "us-east-1") // most other servers have no regions
		})
	}
	cfg, err := s3Config(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	transport := newTransport(awshttp.NewBuildableClient())
	cfg.HTTPClient = newHTTPClient(transport)
	b.client = s3.NewFromConfig(cfg, opts...)
	b.close = transport.CloseIdleConnections
	return b, nil
}

// take removes a parameter from q, and returns its value.
func take(q url.Values, name string) string {
	v := q.Get(name)
	q.Del(name)
	return v
}

func encryptionOf(name string) types.ServerSideEncryption {
	for _, v := range types.ServerSideEncryption("").Values() {
		if strings.EqualFold(string(v), name) {
			return v
		}
	}
	return ""
}

// NewS3 returns a bucket that client can access. It uses the client's HTTP client
// unless that is the SDK's default, which keeps too few connections.
func NewS3(client *s3.Client, bucket string) Bucket {
	b := &s3Bucket{client: client, name: bucket, close: func() {}}
	b.unfinished.init()
	o := client.Options()
	if c, ok := o.HTTPClient.(*awshttp.BuildableClient); ok &&
		c.GetTransport().MaxIdleConnsPerHost == awshttp.DefaultHTTPTransportMaxIdleConnsPerHost {
		transport := newTransport(c)
		hc := newHTTPClient(transport)
		hc.Timeout = c.GetTimeout()
		b.client = s3.New(o, func(o *s3.Options) { o.HTTPClient = hc })
		b.close = transport.CloseIdleConnections
	}
	return b
}

// newTransport returns a transport like that of c, with more idle connections. It
// has no timeout for responses: the deadlines are those of the contexts.
func newTransport(c *awshttp.BuildableClient) *http.Transport {
	c = c.WithDialerOptions(func(d *net.Dialer) { d.Timeout = 5 * time.Second })
	t := c.GetTransport()
	t.MaxIdleConns = 0 // no limit but that per host
	t.MaxIdleConnsPerHost = maxIdleConns
	return t
}

// newHTTPClient returns a client that follows no redirects: a redirect of S3 tells
// that the bucket is in another region, for which the request isn't signed.
func newHTTPClient(t *http.Transport) *http.Client {
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// once are the options of each call: the SDK must not retry, not even if the
// client's owner has configured it to, and must not compute checksums of responses,
// because the store verifies digests.
func once(o *s3.Options) {
	o.Retryer = aws.NopRetryer{}
	o.RetryMaxAttempts = 1
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
}

func (b *s3Bucket) Conditional() bool { return true }

// Close waits for requests that go on without their caller, for some seconds, and closes idle
// connections, if they are b's own.
func (b *s3Bucket) Close() error {
	b.unfinished.close()
	b.close()
	return nil
}
