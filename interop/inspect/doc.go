// SPDX-License-Identifier: Apache-2.0

// Package inspect opens the page of berth serve --ui in Chromium: journeys through all views,
// hostile content, and a busy server.
//
//	BERTH_SCREENSHOTS=DIR go test -v -run TestScreenshots ./inspect   keeps pictures of each view
package inspect
