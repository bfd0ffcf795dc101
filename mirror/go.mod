module github.com/berth-oci/registry/mirror

go 1.25.0

require (
	github.com/berth-oci/registry v0.1.0
	github.com/go-quicktest/qt v1.102.0
	github.com/hashicorp/golang-lru/v2 v2.0.7
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.1
	golang.org/x/sync v0.22.0
	oras.land/oras-go/v2 v2.6.2
)

require (
	github.com/google/go-cmp v0.6.0 // indirect
	github.com/kr/pretty v0.3.1 // indirect
	github.com/kr/text v0.2.0 // indirect
	github.com/rogpeppe/go-internal v1.12.0 // indirect
)
