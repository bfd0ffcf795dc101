// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"testing"

	"github.com/berth-oci/registry/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
