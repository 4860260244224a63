package main

import (
	"io"
	"log/slog"

	"sluice/internal/config"
)

// newLog returns the process's logger.
func newLog(w io.Writer, cfg config.Log) *slog.Logger {
	log, _ := newLeveledLog(w, cfg)
	return log
}

// newLeveledLog returns one whose level can be changed.
func newLeveledLog(w io.Writer, cfg config.Log) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	_ = level.UnmarshalText([]byte(cfg.Level)) // checked by config; Info otherwise
	o := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), level
	}
	return slog.New(slog.NewTextHandler(w, o)), level
}
