// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"log"
	"os"
	"testing"

	"github.com/berth-oci/registry/internal/leak"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(replicaVariable); url != "" {
		log.Fatal(serveReplica(url))
	}
	leak.Main(m)
}
