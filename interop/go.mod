module github.com/berth-oci/registry/interop

go 1.25.0

replace github.com/berth-oci/registry => ..
