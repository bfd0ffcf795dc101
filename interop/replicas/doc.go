// SPDX-License-Identifier: Apache-2.0

// Package replicas tests several processes of berth serve that share a bucket.
package replicas
