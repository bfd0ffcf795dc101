// SPDX-License-Identifier: Apache-2.0

// Notifications to systemd: sd_notify(3).

package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifyReady says that the server serves, or has read its configuration again.
func notifyReady(log *slog.Logger) { notifySystemd(log, daemon.SdNotifyReady) }

// notifyReloading says that the server reads its configuration again. It must be followed
// by notifyReady.
func notifyReloading(log *slog.Logger) {
	notifySystemd(log, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
}

// notifyStopping says that the server finishes the requests in progress.
func notifyStopping(log *slog.Logger) { notifySystemd(log, daemon.SdNotifyStopping) }

// notifySystemd has no effect without $NOTIFY_SOCKET.
func notifySystemd(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd was not notified", "error", err)
	}
}

// watchdog tells systemd until ctx is done that this process works, if its unit has
// WatchdogSec=.
func watchdog(ctx context.Context, log *slog.Logger) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog gets no messages", "error", err)
	}
	if limit <= 0 {
		return
	}
	ticks := time.NewTicker(limit / 2)
	defer ticks.Stop()
	for {
		notifySystemd(log, daemon.SdNotifyWatchdog)
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}
