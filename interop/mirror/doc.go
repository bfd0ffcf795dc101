// SPDX-License-Identifier: Apache-2.0

// Package mirror tests mirrors of other registries, and the clients that pull through a
// mirror, with the configurations that berth mirror hosts prints.
//
//	go test -v -run TestClients ./mirror   prints a table of the clients
//
// Clients and registries that are not installed are skipped. Those without a package are
// built from their source:
//
//	buildkitd, buildctl   cd "$(go mod download -json github.com/moby/buildkit@v0.25.2 | jq -r .Dir)" &&
//	                      GOWORK=off go build -ldflags '-X github.com/moby/buildkit/version.Version=v0.25.2' -o "$(go env GOPATH)/bin/" ./cmd/buildkitd ./cmd/buildctl
//	zot                   in a clone of github.com/project-zot/zot: go build ./cmd/zot
package mirror
