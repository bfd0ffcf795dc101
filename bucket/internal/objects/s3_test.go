// SPDX-License-Identifier: Apache-2.0

package objects_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
	"github.com/berth-oci/registry/bucket/miniotest"
)

// faults makes the first n requests of an operation fail.
func faults(op string, n int, f fault) func(string, int) fault {
	return func(o string, i int) fault {
		if o == op && i <= n {
			return f
		}
		return none
	}
}

// always is a number of faults that nothing overcomes.
const always = 1000

func TestS3SendsOnce(t *testing.T) {
	b, p, direct := behindProxy(t)
	ctx := context.Background()
	put := func(c objects.Condition) error {
		_, err := b.Put(ctx, "k", []byte("bytes"), c)
		return err
	}
	qt.Assert(t, qt.IsNil(put(objects.Condition{})))
	for _, f := range []fault{lostRequest, lostResponse, slowDown} {
		for _, test := range []struct {
			op   string
			call func() error
		}{
			{"PUT", func() error { return put(objects.Condition{}) }},
			{"PUT", func() error { return put(objects.Condition{Absent: true}) }},
			{"PUT", func() error { return put(objects.Condition{Version: "v"}) }},
			{"PUT", func() error { return b.Copy(ctx, "copy", "k", 5) }},
			{"DELETE", func() error { return b.Delete(ctx, "copy", "") }},
		} {
			// The connection has been used before: net/http could replay.
			_, err := b.Stat(ctx, "k")
			qt.Assert(t, qt.IsNil(err))
			p.setFaults(faults(test.op, always, f))
			err = test.call()
			qt.Check(t, qt.IsNotNil(err))
			for _, meaning := range []error{objects.ErrCondition, objects.ErrNotExist, objects.ErrRejected} {
				qt.Check(t, qt.Not(qt.ErrorIs(err, meaning)))
			}
			qt.Check(t, qt.Equals(p.count(test.op), 1), qt.Commentf("fault %d", f))
			p.setFaults(nil)
		}
	}
	// A response that is lost leaves its write.
	p.setFaults(faults("PUT", 1, lostResponse))
	_, err := b.Put(ctx, "lost", []byte("bytes"), objects.Condition{Absent: true})
	qt.Assert(t, qt.IsNotNil(err))
	_, err = open(t, direct).Stat(ctx, "lost")
	qt.Assert(t, qt.IsNil(err))

	p.setFaults(faults("GET", always, slowDown))
	_, err = b.Get(ctx, "k", 0, -1)
	qt.Assert(t, qt.IsNotNil(err))
	qt.Assert(t, qt.Equals(p.count("GET"), 1))
}

// TestS3ClientWithRetries checks that the retries of a caller's client are off.
func TestS3ClientWithRetries(t *testing.T) {
	_, p, direct := behindProxy(t)
	u, err := url.Parse(direct)
	qt.Assert(t, qt.IsNil(err))
	client := s3.New(s3.Options{
		BaseEndpoint:     &p.URL,
		Region:           "us-east-1",
		UsePathStyle:     true,
		RetryMaxAttempts: 5,
		Retryer:          retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts = 7 }),
		Credentials: credentials.NewStaticCredentialsProvider(
			os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
	})
	b := objects.NewS3(client, u.Host)
	defer b.Close()
	_, err = b.Put(context.Background(), "k", []byte("bytes"), objects.Condition{})
	qt.Assert(t, qt.IsNil(err))
	p.setFaults(faults("PUT", always, slowDown))
	_, err = b.Put(context.Background(), "k", []byte("bytes"), objects.Condition{})
	qt.Assert(t, qt.IsNotNil(err))
	qt.Assert(t, qt.Equals(p.count("PUT"), 1))
}

// TestS3WriterFaults breaks single requests of a multipart upload of three parts.
func TestS3WriterFaults(t *testing.T) {
	b, p, direct := behindProxy(t)
	clean := open(t, direct)
	ctx := context.Background()
	data := bytes.Repeat([]byte("0123456789abcdef"), 20<<20/16)
	for i, test := range []struct {
		op    string
		n     int
		fault fault
		ok    bool
	}{
		{"POST uploads", 2, slowDown, true},
		{"POST uploads", always, slowDown, false},
		{"PUT part", 2, slowDown, true},
		{"PUT part", 2, lostRequest, true},
		{"PUT part", 2, lostResponse, true},
		{"PUT part", always, lostResponse, false},
		{"PUT part", always, slowDown, false},
		{"POST upload", 1, lostRequest, true},
		{"POST upload", 1, lostResponse, true},
		{"POST upload", 1, slowDown, true},
		{"POST upload", always, slowDown, false},
		{"POST upload", always, lostRequest, false},
	} {
		name := fmt.Sprintf("%s %d times, fault %d", test.op, test.n, test.fault)
		key := fmt.Sprint("k", i)
		p.setFaults(faults(test.op, test.n, test.fault))
		w := b.NewWriter(ctx, key)
		_, err := w.Write(data)
		if err == nil {
			err = w.Close()
		} else {
			w.Abort()
		}
		p.setFaults(nil)
		qt.Check(t, qt.Equals(err == nil, test.ok), qt.Commentf("%s: %v", name, err))
		if test.ok {
			qt.Check(t, qt.DeepEquals(hashOf(t, clean, key), hashOf(t, clean, "k0")))
		} else {
			_, err := clean.Stat(ctx, key)
			qt.Check(t, qt.ErrorIs(err, objects.ErrNotExist), qt.Commentf(name))
		}
		qt.Check(t, qt.Equals(abandoned(t, clean, key), 0), qt.Commentf(name))
	}

	// An object of one chunk is sent again, too.
	for _, test := range []struct {
		n        int
		fault    fault
		requests int
		ok       bool
	}{
		{2, slowDown, 3, true},
		{always, slowDown, 3, false},
		{1, lostResponse, 2, true},
	} {
		p.setFaults(faults("PUT", test.n, test.fault))
		w := b.NewWriter(ctx, "small")
		_, err := w.Write([]byte("bytes"))
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(w.Close() == nil, test.ok))
		qt.Check(t, qt.Equals(p.count("PUT"), test.requests))
		qt.Check(t, qt.Equals(p.count("POST uploads"), 0))
	}
}

// hashOf returns the first and the last bytes, and the size, of an object.
func hashOf(t *testing.T, b objects.Bucket, key string) []any {
	t.Helper()
	r, err := b.Get(context.Background(), key, 0, -1)
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	data, err := io.ReadAll(r)
	qt.Assert(t, qt.IsNil(err))
	return []any{len(data), string(data[:16]), string(data[len(data)-16:])}
}

// abandoned returns the number of unfinished multipart uploads of a key.
func abandoned(t *testing.T, b objects.Bucket, key string) int {
	t.Helper()
	n, err := b.AbortWriters(context.Background(), key, time.Now().Add(time.Hour))
	qt.Assert(t, qt.IsNil(err))
	return n
}

// TestS3WriterCancelled cancels a writer in each of its requests.
func TestS3WriterCancelled(t *testing.T) {
	b, p, direct := behindProxy(t)
	clean := open(t, direct)
	for _, op := range []string{"PUT", "PUT part", "POST upload"} {
		size := 20 << 20
		if op == "PUT" {
			size = 1
		}
		ctx, cancel := context.WithCancel(context.Background())
		p.setFaults(func(o string, n int) fault {
			if o != op {
				return none
			}
			time.AfterFunc(10*time.Millisecond, cancel)
			return stalled
		})
		start := time.Now()
		w := b.NewWriter(ctx, "k")
		_, err := w.Write(make([]byte, size))
		if err == nil {
			err = w.Close()
		}
		w.Abort()
		cancel()
		qt.Check(t, qt.ErrorIs(err, context.Canceled), qt.Commentf(op))
		qt.Check(t, qt.IsTrue(time.Since(start) < 5*time.Second))
		p.setFaults(nil)
		_, err = clean.Stat(context.Background(), "k")
		qt.Check(t, qt.ErrorIs(err, objects.ErrNotExist))
		qt.Check(t, qt.Equals(abandoned(t, clean, "k"), 0), qt.Commentf(op))
	}

	// The request that begins the upload is not interrupted, so that Abort knows
	// the upload.
	ctx, cancel := context.WithCancel(context.Background())
	p.setFaults(func(o string, n int) fault {
		if o == "POST uploads" {
			cancel()
		}
		return none
	})
	w := b.NewWriter(ctx, "k")
	w.Write(make([]byte, 20<<20))
	w.Abort()
	qt.Check(t, qt.Equals(p.count("DELETE upload"), 1))
	qt.Check(t, qt.Equals(abandoned(t, clean, "k"), 0))
}

// TestS3AbortWriters checks that S3 knows of an unfinished object.
func TestS3AbortWriters(t *testing.T) {
	b := open(t, miniotest.Start(t).URL(t))
	w := b.NewWriter(context.Background(), "k")
	defer w.Abort()
	_, err := w.Write(make([]byte, 17<<20))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(abandoned(t, b, "k"), 1))
	qt.Assert(t, qt.Equals(abandoned(t, b, "k"), 0))
}

func TestS3ReusesConnections(t *testing.T) {
	b, p, _ := behindProxy(t)
	ctx := context.Background()
	_, err := b.Put(ctx, "k", []byte("bytes"), objects.Condition{})
	qt.Assert(t, qt.IsNil(err))
	for range 10 {
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				r, err := b.Get(ctx, "k", 0, -1)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, r)
				r.Close()
			})
		}
		wg.Wait()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.Logf("%d connections", p.connections)
	qt.Assert(t, qt.IsTrue(p.connections <= 300))
}

func TestS3Rejected(t *testing.T) {
	ctx := context.Background()
	direct := miniotest.Start(t).URL(t)
	anonymous := open(t, direct+"&anonymous=true")
	missing := open(t, strings.Replace(direct, "s3://", "s3://no-", 1))
	for _, b := range []objects.Bucket{anonymous, missing} {
		for name, f := range map[string]func() error{
			"Get":    func() error { _, err := b.Get(ctx, "k", 0, -1); return err },
			"Stat":   func() error { _, err := b.Stat(ctx, "k"); return err },
			"Put":    func() error { _, err := b.Put(ctx, "k", nil, objects.Condition{}); return err },
			"Copy":   func() error { return b.Copy(ctx, "a", "k", 5) },
			"Delete": func() error { return b.Delete(ctx, "k", "") },
			"List":   func() error { _, _, err := b.List(ctx, objects.ListQuery{}, 10); return err },
			"Close":  func() error { return b.NewWriter(ctx, "k").Close() },
			"Write":  func() error { _, err := b.NewWriter(ctx, "k").Write(make([]byte, 17<<20)); return err },
		} {
			err := f()
			qt.Check(t, qt.ErrorIs(err, objects.ErrRejected), qt.Commentf(name))
			qt.Check(t, qt.Not(qt.ErrorIs(err, objects.ErrNotExist)), qt.Commentf(name))
		}
	}
	_, err := anonymous.SignedURL(ctx, "k", time.Minute)
	qt.Check(t, qt.ErrorIs(err, objects.ErrUnsupported))
}

func TestOpenInvalid(t *testing.T) {
	for _, s := range []string{
		"s3://?region=x", "s3://b?region=x&unknown=1", "s3://b?region=x&awssdk=v1", "s3://b?region=x&role=r", "s3://b?region=x&fips=maybe",
		"s3://b?region=x&request_checksum_calculation=never", "s3://b?region=x&rate_limiter_capacity=10", "s3://b?region=x&use_path_style=maybe", "s3://b?ssetype=none",
		"s3://b?prefix=p", "mem://?prefix=p", "none://b", "file:///does/not/exist",
	} {
		u, err := url.Parse(s)
		qt.Assert(t, qt.IsNil(err))
		_, err = objects.Open(context.Background(), u)
		qt.Check(t, qt.IsNotNil(err), qt.Commentf(s))
	}
	for _, s := range []string{
		"s3://b?region=x&request_checksum_calculation=when_required&response_checksum_validation=when_required&ssetype=AES256&kmskeyid=k&accelerate=false&s3ForcePathStyle=true&disable_https=true&dualstack=true&fips=false",
		"s3://b?region=x&endpoint=http://127.0.0.1:1&hostname_immutable=true&awssdk=v2&role=arn:aws:iam::1:role/r&anonymous=true",
	} {
		open(t, s)
	}
}
