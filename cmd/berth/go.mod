module github.com/berth-oci/registry/cmd/berth

go 1.25.0

require (
	github.com/alecthomas/kong v1.17.0
	github.com/berth-oci/registry v0.0.0
	github.com/docker/go-units v0.5.0
	github.com/opencontainers/go-digest v1.0.0
	github.com/rogpeppe/go-internal v1.16.0
	golang.org/x/crypto v0.55.0
	golang.org/x/net v0.58.0
)

require (
	github.com/opencontainers/image-spec v1.1.1 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/tools v0.26.0 // indirect
)

replace github.com/berth-oci/registry => ../..
