// SPDX-License-Identifier: Apache-2.0

// Package model tests properties that no single request shows: the outcomes of
// racing requests, and long random histories, which are compared with a model of a
// registry.
//
// By default its tests are short. For long runs:
//
//	go test -race -timeout 0 ./model -run TestRaces -races=10m
//	go test -race -timeout 0 ./model -run TestModel -model=10m
package model
