// SPDX-License-Identifier: Apache-2.0

// Package deploy checks the files in deploy: units of systemd, manifests of Kubernetes,
// and a Compose file. None of the programs that they are for has to run here.
package deploy
