// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/miniotest"
)

// TestCheckSentences checks what an operator reads whose bucket can't be used: one
// sentence, and nothing of the attempts or of the cleaning up.
func TestCheckSentences(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	closed := l.Addr().String()
	l.Close()
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-release }))
	defer hanging.Close()
	defer close(release)
	server := miniotest.Start(t)
	minio := server.Address(0)
	const noCredentials = "AWS_ACCESS_KEY_ID="
	for _, test := range []struct {
		name, url   string
		env         string
		unavailable bool
		want        string
	}{
		{"bucket", server.URLAt("nobucket", minio), "", false, "the bucket nobucket does not exist"},
		{"password", server.URLAt("nobucket", minio), "AWS_SECRET_ACCESS_KEY=wrong", false,
			"the bucket nobucket rejects the request: SignatureDoesNotMatch: The request signature we calculated does not match .*"},
		{"credentials", server.URLAt("nobucket", minio), noCredentials, true, "no credentials for S3: .*"},
		{"refused", server.URLAt("b", closed), "", true, "can't reach http://" + closed + ": connection refused"},
		{"host", server.URLAt("b", "no-such-host.invalid"), "", true, "can't reach http://no-such-host.invalid: .*"},
		{"hangs", server.URLAt("b", strings.TrimPrefix(hanging.URL, "http://")), "", true, "can't use the bucket b: no response in time"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			t.Setenv("AWS_CONFIG_FILE", "/dev/null")
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
			if name, value, ok := strings.Cut(test.env, "="); ok {
				t.Setenv(name, value)
			}
			s := open(t, test.url, &bucket.Options{
				Timeout: 2 * time.Second,
				OnError: func(err error) { t.Error("also reported: ", err) },
			})
			err := s.Check(t.Context())
			qt.Check(t, qt.ErrorMatches(err, test.want))
			qt.Check(t, qt.Equals(errors.Is(err, registry.ErrUnavailable), test.unavailable))
		})
	}
}

// TestEndpointScheme opens buckets whose endpoint is no URL.
func TestEndpointScheme(t *testing.T) {
	for _, endpoint := range []string{"127.0.0.1:9000", "localhost:9000", "minio.example"} {
		_, err := bucket.Open(t.Context(), "s3://b?region=us-east-1&endpoint="+endpoint, nil)
		qt.Check(t, qt.ErrorMatches(err, `bucket: objects: the endpoint "`+endpoint+`" is no URL: it must begin with http:// or https://`))
	}
}
