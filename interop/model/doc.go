// SPDX-License-Identifier: Apache-2.0

// Package model tests what no single request shows: requests that race, and
// long random histories against a model of what a registry is.
//
// By default its tests are short. For long runs:
//
//	go test -race -timeout 0 ./model -run TestRaces -races=10m
//	go test -race -timeout 0 ./model -run TestModel -model=10m
package model
