// SPDX-License-Identifier: Apache-2.0

// Real clients against registries that behave like well-known ones.

package interop

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	"github.com/regclient/regclient"
	"github.com/regclient/regclient/config"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	orasremote "oras.land/oras-go/v2/registry/remote"
	orasauth "oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berth-oci/registry/registrytest"
)

// profileClients maps the name of each client to a function that pushes the image
// c to a repository and pulls it again.
var profileClients = map[string]func(t *testing.T, p registrytest.Profile, host string, c *content) error{
	"oras": func(t *testing.T, p registrytest.Profile, host string, c *content) error {
		repo := func() *orasremote.Repository {
			r := orasRepo(t, host, "team/app")
			r.Client = &orasauth.Client{
				Client: http.DefaultClient,
				Credential: func(context.Context, string) (orasauth.Credential, error) {
					return orasauth.Credential{Username: p.User, Password: p.Password}, nil
				},
			}
			return r
		}
		from, err := oci.New(c.writeLayout(t))
		qt.Assert(t, qt.IsNil(err))
		if _, err := oras.Copy(t.Context(), from, c.name, repo(), c.name, oras.DefaultCopyOptions); err != nil {
			return err
		}
		dir := t.TempDir()
		to, err := oci.New(dir)
		qt.Assert(t, qt.IsNil(err))
		if _, err := oras.Copy(t.Context(), repo(), c.name, to, c.name, oras.DefaultCopyOptions); err != nil {
			return err
		}
		c.checkLayout(t, dir)
		return nil
	},
	"ggcr": func(t *testing.T, p registrytest.Profile, host string, c *content) error {
		path, err := layout.FromPath(c.writeLayout(t))
		qt.Assert(t, qt.IsNil(err))
		ref, err := name.ParseReference(host + "/team/app:" + c.name)
		qt.Assert(t, qt.IsNil(err))
		opt := remote.WithAuth(authn.Anonymous)
		if p.User != "" {
			opt = remote.WithAuth(&authn.Basic{Username: p.User, Password: p.Password})
		}
		image, err := path.Image(ggcrHash(t, c.root.Digest))
		qt.Assert(t, qt.IsNil(err))
		if err := remote.Write(ref, image, opt); err != nil {
			return err
		}
		pulled, err := remote.Image(ref, opt)
		if err != nil {
			return err
		}
		layers, err := pulled.Layers()
		if err != nil {
			return err
		}
		for i, layer := range layers {
			r, err := layer.Compressed()
			if err != nil {
				return err
			}
			d, err := digest.FromReader(r)
			r.Close()
			if err != nil {
				return err
			}
			hash, _ := layer.Digest()
			qt.Check(t, qt.Equals(d.String(), hash.String()), qt.Commentf("layer %d", i))
		}
		_, err = pulled.RawConfigFile()
		return err
	},
	"regclient": func(t *testing.T, p registrytest.Profile, host string, c *content) error {
		rc := newRegclient(config.Host{Name: host, User: p.User, Pass: p.Password})
		repo := regclientRef(t, host+"/team/app:"+c.name)
		if err := rc.ImageCopy(t.Context(), regclientRef(t, "ocidir://"+c.writeLayout(t)+":"+c.name), repo); err != nil {
			return err
		}
		dir := t.TempDir()
		layoutRef := regclientRef(t, "ocidir://"+dir+":"+c.name)
		if err := newRegclient(config.Host{Name: host, User: p.User, Pass: p.Password}).ImageCopy(t.Context(), repo, layoutRef, regclient.ImageWithForceRecursive()); err != nil {
			return err
		}
		qt.Assert(t, qt.IsNil(rc.Close(t.Context(), layoutRef)))
		c.checkLayout(t, dir)
		return nil
	},
	"containerd": func(t *testing.T, p registrytest.Profile, host string, c *content) error {
		resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
			docker.WithPlainHTTP(docker.MatchAllHosts),
			docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthCreds(func(string) (string, string, error) { return p.User, p.Password, nil }))),
		)})
		ref := host + "/team/app:" + c.name
		pusher, err := resolver.Pusher(t.Context(), ref)
		qt.Assert(t, qt.IsNil(err))
		if err := pushInTurn(t, pusher, c); err != nil {
			return err
		}
		resolved, root, err := resolver.Resolve(t.Context(), ref)
		if err != nil {
			return err
		}
		qt.Check(t, qt.Equals(root.Digest, c.root.Digest))
		fetcher, err := resolver.Fetcher(t.Context(), resolved)
		qt.Assert(t, qt.IsNil(err))
		for _, d := range append(c.blobs, c.manifests...) {
			r, err := fetcher.Fetch(t.Context(), d)
			if err != nil {
				return err
			}
			got, err := digest.FromReader(r)
			r.Close()
			if err != nil {
				return err
			}
			qt.Check(t, qt.Equals(got, d.Digest))
		}
		return nil
	},
}

// TestProfiles pushes to each profile and pulls from it with each client.
func TestProfiles(t *testing.T) {
	registrytest.ForEachProfile(t, func(t *testing.T, p registrytest.Profile) {
		for _, name := range slices.Sorted(maps.Keys(profileClients)) {
			t.Run(name, func(t *testing.T) {
				s := p.NewServer(t)
				c := contents()["image"]
				err := profileClients[name](t, p, s.Host, c)
				qt.Assert(t, qt.IsNil(err))
				m, err := s.Store.GetTag(t.Context(), "team/app", c.name)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(m.Digest, c.root.Digest))
			})
		}
	})
}
