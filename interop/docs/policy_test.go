// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry/bucket/miniotest"
	"github.com/berth-oci/registry/interop/internal/berth"
)

// TestPolicy lets MinIO enforce the policy of docs/buckets.md, and uses the registry with
// it. Without any one of the actions, something fails; except those about multipart
// uploads, which only tidy up, and which MinIO's lists do not need.
func TestPolicy(t *testing.T) {
	m := miniotest.Start(t)
	policy := s3Policy(t)
	t.Run("as is", func(t *testing.T) {
		qt.Assert(t, qt.IsNil(useBucket(t, m, policy)))
	})
	for _, action := range []string{"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"} {
		quoted := `"` + action + `"`
		qt.Assert(t, qt.StringContains(policy, quoted))
		t.Run("without "+action, func(t *testing.T) {
			err := useBucket(t, m, strings.Replace(policy, quoted, `"s3:ListAllMyBuckets"`, 1))
			qt.Check(t, qt.IsNotNil(err))
			t.Log(err)
		})
	}
}

// s3Policy returns the policy of docs/buckets.md.
func s3Policy(t *testing.T) string {
	t.Helper()
	for _, b := range blocks(t, filepath.Join(root, "docs", "buckets.md")) {
		if b.comment == "policy of S3" {
			return b.code
		}
	}
	t.Fatal("docs/buckets.md has no policy")
	panic("unreachable")
}

// useBucket serves a registry from a new bucket of MinIO, with credentials that have
// only the rights of a policy, and returns the first error.
func useBucket(t *testing.T, m *miniotest.Server, policy string) error {
	t.Helper()
	store := m.URL(t) // also sets the credentials of root
	u, err := url.Parse(store)
	qt.Assert(t, qt.IsNil(err))
	client := sts.New(sts.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String("http://" + m.Address(0)),
		Credentials:  credentials.NewStaticCredentialsProvider(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
	})
	role, err := client.AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn:         aws.String("arn:aws:iam::111122223333:role/berth"), // MinIO ignores it
		RoleSessionName: aws.String("test"),
		Policy:          aws.String(strings.ReplaceAll(policy, "my-registry", u.Host)),
	})
	qt.Assert(t, qt.IsNil(err))
	t.Setenv("AWS_ACCESS_KEY_ID", *role.Credentials.AccessKeyId)
	t.Setenv("AWS_SECRET_ACCESS_KEY", *role.Credentials.SecretAccessKey)
	t.Setenv("AWS_SESSION_TOKEN", *role.Credentials.SessionToken)

	binary, err := berth.Build()
	qt.Assert(t, qt.IsNil(err))
	run := func(args ...string) error {
		out, err := exec.Command(binary, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("berth %s: %w: %s", args[0], err, out)
		}
		return nil
	}
	addrFile := filepath.Join(t.TempDir(), "addr")
	server := exec.Command(binary, "serve", "--addr=127.0.0.1:0", "--addr-file="+addrFile, "--store", store)
	var log bytes.Buffer
	server.Stderr = &log
	qt.Assert(t, qt.IsNil(server.Start()))
	exited := make(chan struct{})
	go func() {
		server.Wait() // its log says why it has exited
		close(exited)
	}()
	defer func() {
		server.Process.Kill() // may have exited
		<-exited
	}()
	var addr []byte
	for addr == nil {
		select {
		case <-exited:
			return fmt.Errorf("berth serve: %s", &log)
		case <-time.After(20 * time.Millisecond):
			addr, _ = os.ReadFile(addrFile) // does not exist yet
		}
	}
	return errors.Join(useRegistry(t.Context(), strings.TrimSpace(string(addr))), run("gc", "--store", store, "--grace=30m"), run("check", "--store", store))
}

// useRegistry pushes, pulls and deletes content of each kind, and returns the first error.
func useRegistry(ctx context.Context, host string) error {
	small, large, wrong := []byte("{}"), make([]byte, 12<<20), make([]byte, 12<<20) // large enough for several parts
	rand.NewChaCha8([32]byte{1}).Read(large)
	rand.NewChaCha8([32]byte{2}).Read(wrong)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     ocispec.MediaTypeImageManifest,
		"config":        ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: digest.FromBytes(small), Size: int64(len(small))},
		"layers":        []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(large), Size: int64(len(large))}},
	})
	if err != nil {
		return err
	}
	blobs := "/v2/app/blobs/"
	location := ""
	for _, step := range []struct {
		method, path string
		body         []byte
		want         int
	}{
		{"POST", blobs + "uploads/?digest=" + digest.FromBytes(small).String(), small, 201},
		{"POST", blobs + "uploads/", nil, 202},
		{"PATCH", "", large[:7<<20], 202}, // an empty path is the last Location
		{"PATCH", "", large[7<<20:], 202},
		{"PUT", "?digest=" + digest.FromBytes(large).String(), nil, 201},
		{"POST", blobs + "uploads/?digest=" + digest.FromString("").String(), wrong, 400},
		{"POST", blobs + "uploads/", nil, 202},
		{"PATCH", "", wrong, 202},
		{"DELETE", "", nil, 204},
		{"POST", "/v2/other/blobs/uploads/?from=app&mount=" + digest.FromBytes(large).String(), nil, 201},
		{"PUT", "/v2/app/manifests/latest", manifest, 201},
		{"PUT", "/v2/app/manifests/latest", manifest, 201},
		{"GET", "/v2/app/manifests/latest", nil, 200},
		{"GET", blobs + digest.FromBytes(large).String(), nil, 200},
		{"GET", blobs + digest.FromBytes(wrong).String(), nil, 404},
		{"GET", "/v2/app/tags/list", nil, 200},
		{"GET", "/v2/_catalog", nil, 200},
		{"GET", "/v2/app/referrers/" + digest.FromBytes(manifest).String(), nil, 200},
		{"DELETE", "/v2/app/manifests/latest", nil, 202},
		{"DELETE", "/v2/app/manifests/" + digest.FromBytes(manifest).String(), nil, 202},
		{"DELETE", blobs + digest.FromBytes(large).String(), nil, 202},
	} {
		if !strings.HasPrefix(step.path, "/") {
			step.path = location + step.path
		}
		req, err := http.NewRequestWithContext(ctx, step.method, "http://"+host+step.path, bytes.NewReader(step.body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", ocispec.MediaTypeImageManifest)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
		resp.Body.Close()
		if err != nil || resp.StatusCode != step.want {
			return fmt.Errorf("%s %s: %s, want %d: %q %w", step.method, step.path, resp.Status, step.want, body, err)
		}
		location = resp.Header.Get("Location")
	}
	return nil
}
