// SPDX-License-Identifier: Apache-2.0

// Package inspect tests the page of berth serve in Chromium, with real clients. Each journey
// is something that a person does with it; any error, warning or violation of the page's
// policy in the browser's console fails it. Hostile content and a busy server are others.
//
// Pictures of all views are kept in the folder BERTH_SCREENSHOTS, or in a temporary one. They
// are checked with axe-core, which npm fetches from its registry.
package inspect
