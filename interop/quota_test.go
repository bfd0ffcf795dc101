// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/platforms"
	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/regclient/regclient/config"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/quota"
)

// pushers push an image, and return what they tell the user if that fails.
var pushers = map[string]func(t *testing.T, host, repo string, c *content) error{
	"crane": func(t *testing.T, host, repo string, c *content) error {
		path, err := layout.FromPath(c.writeLayout(t))
		qt.Assert(t, qt.IsNil(err))
		image, err := path.Image(ggcrHash(t, c.root.Digest))
		qt.Assert(t, qt.IsNil(err))
		return crane.Push(image, host+"/"+repo+":"+c.name)
	},
	"containerd": func(t *testing.T, host, repo string, c *content) error {
		pusher, err := newResolver().Pusher(t.Context(), host+"/"+repo+":"+c.name)
		qt.Assert(t, qt.IsNil(err))
		return remotes.PushContent(t.Context(), pusher, c.root, provider(c.bytes), nil, platforms.All, nil)
	},
	"oras": func(t *testing.T, host, repo string, c *content) error {
		from, err := oci.NewFromFS(t.Context(), os.DirFS(c.writeLayout(t)))
		qt.Assert(t, qt.IsNil(err))
		_, err = oras.Copy(t.Context(), from, c.name, orasRepo(t, host, repo), c.name, oras.DefaultCopyOptions)
		return err
	},
	"regclient": func(t *testing.T, host, repo string, c *content) error {
		return regclientCopy(t, config.Host{Name: host}, repo, c)
	},
	"regclient-in-chunks": func(t *testing.T, host, repo string, c *content) error {
		return regclientCopy(t, config.Host{Name: host, BlobChunk: 100_000, BlobMax: 1}, repo, c)
	},
	"skopeo": func(t *testing.T, host, repo string, c *content) error {
		_, stderr, err := newSkopeo(t).exec(t, []string{"copy", "--preserve-digests", "--dest-tls-verify=false",
			"oci:" + c.writeLayout(t) + ":" + c.name, "docker://" + host + "/" + repo + ":" + c.name})
		if err != nil {
			return errors.New(stderr)
		}
		return nil
	},
}

func regclientCopy(t *testing.T, host config.Host, repo string, c *content) error {
	from := regclientRef(t, "ocidir://"+c.writeLayout(t)+":"+c.name)
	return newRegclient(host).ImageCopy(t.Context(), from, regclientRef(t, host.Name+"/"+repo+":"+c.name))
}

// raceDetector reports whether the race detector is on.
var raceDetector bool

// TestQuota checks that clients show the message of a push that a quota rejects, that
// such a push leaves nothing that counts over the limit, and that pushes within the
// quota succeed.
//
// regclient 0.11.5 does not read the body of an error when it pushes a blob, whatever
// the status: after a rejected PUT it tries chunks, and reports the last status alone.
// It shows the message if the upload can't begin, and for a manifest. skopeo 1.9.3 sends
// "Connection: close", and then net/http closes the connection after the response
// without waiting for the rest of the body: if skopeo still writes at that moment, it
// reports a broken connection instead.
func TestQuota(t *testing.T) {
	small := newContent("small")
	small.root = small.addImage("linux/amd64", layer{data: []byte("a layer")}, false)
	size := int64(0)
	for _, data := range small.bytes {
		size += int64(len(data))
	}
	image := func(name string, n int) *content {
		c, data := newContent(name), make([]byte, n)
		rand.NewChaCha8([32]byte{2}).Read(data)
		c.root = c.addImage("linux/amd64", layer{data: data}, false)
		return c
	}
	large, huge := image("large", 1_100_000), image("huge", 16<<20)
	const million = `quota exceeded: all repositories together may have 1000000 bytes, with this push there would be [0-9]{7,}`

	for name, push := range pushers {
		t.Run(name, func(t *testing.T) {
			for _, test := range []struct {
				name     string
				limit    quota.Limit
				rejected *content
				message  string // a regular expression
			}{
				{"large-layer", quota.Limit{Bytes: 1_000_000}, large, million},
				{"huge-layer", quota.Limit{Bytes: 1_000_000}, huge, million},
				{
					"full", quota.Limit{Bytes: size}, large,
					fmt.Sprintf(`quota exceeded: all repositories together may have %d bytes, with this push there would be %d`, size, size+1),
				},
				{
					"manifests", quota.Limit{Repositories: []string{"test"}, Each: true, Manifests: 1}, contents()["image"],
					`quota exceeded: repository test may have 1 manifests, with this push there would be 2`,
				},
			} {
				t.Run(test.name, func(t *testing.T) {
					if raceDetector && name == "regclient" && strings.HasSuffix(test.name, "-layer") {
						t.Skip("regclient 0.11.5 reads a body again while net/http still reads it")
					}
					store, err := quota.New(t.Context(), newStore(t), test.limit)
					qt.Assert(t, qt.IsNil(err))
					host := newServer(t, registry.WithStore(store))
					qt.Assert(t, qt.IsNil(push(t, host, "test", small)))
					small.checkServed(t, host, "test")
					qt.Check(t, qt.Equals(store.Total(), quota.Usage{Blobs: 2, Manifests: 1, Bytes: size}))

					err = push(t, host, "test", test.rejected)
					message := test.message
					switch {
					case strings.HasSuffix(test.name, "-layer") && strings.HasPrefix(name, "regclient"):
						message = `failed to send blob .*\[http 4..\]`
					case strings.HasSuffix(test.name, "-layer") && name == "skopeo":
						message += "|broken pipe|connection reset by peer"
					}
					qt.Check(t, qt.ErrorMatches(err, `(?s).*(`+message+`)(\D.*)?`))
					t.Logf("%v", err)
					total := store.Total()
					qt.Check(t, qt.IsTrue(test.limit.Bytes == 0 || total.Bytes <= test.limit.Bytes), qt.Commentf("%+v", total))
					qt.Check(t, qt.Equals(total.Manifests, 1))
					again := *small
					again.name = "again"
					qt.Check(t, qt.IsNil(push(t, host, "test", &again)))
					again.checkServed(t, host, "test")

					// A client that has given up may have left a request in progress.
					counted := func() bool {
						again, err := quota.New(t.Context(), store.Unwrap())
						return err == nil && again.Total() == store.Total()
					}
					for range 100 {
						if counted() {
							return
						}
						time.Sleep(50 * time.Millisecond)
					}
					t.Errorf("Total is %+v, which is not what the store has", store.Total())
				})
			}
		})
	}
}
