package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"sluice/internal/auth"
	"sluice/internal/problem"
	"sluice/internal/settings"
)

const tagSettings = "Applications and settings"

// InApp is in requests about an application.
type InApp struct {
	App string `path:"app" minLength:"1" maxLength:"64" doc:"The application."`
}

func (a *API) settings() {
	register(a, operation{method: http.MethodGet, path: "/rest/v2/applications/settings/{app}", id: "getAppSettings", tag: tagSettings, needs: auth.SettingsRead,
		does: "An application's settings", more: "The header X-Settings-Version says which version they are."}, a.appSettings)
	register(a, operation{method: http.MethodPost, path: "/rest/v2/applications/settings/{app}", id: "setAppSettings", tag: tagSettings, needs: auth.SettingsWrite,
		does: "Change an application's settings", more: "Members that are not sent stay as they are. Every node has the change within two seconds."}, a.setAppSettings)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/applications/settings/{app}/versions", id: "listAppSettingsVersions", tag: tagSettings, needs: auth.SettingsRead,
		does: "The last 50 versions of an application's settings", more: "The newest is first."}, a.appVersions)
	register(a, operation{method: http.MethodPost, path: "/rest/v2/applications/settings/{app}/versions/{version}/restore", id: "restoreAppSettings", tag: tagSettings, needs: auth.SettingsWrite,
		does: "Go back to an older version", more: "That makes a new version which is as the older one was."}, a.restoreApp)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/server-settings", id: "getServerSettings", tag: tagSettings, needs: auth.SettingsRead,
		does: "The cluster's settings"}, a.serverSettings)
	register(a, operation{method: http.MethodPost, path: "/rest/v2/server-settings", id: "setServerSettings", tag: tagSettings, needs: auth.SettingsWrite,
		does: "Change the cluster's settings", more: "Members that are not sent stay as they are."}, a.setServerSettings)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/server-settings/versions", id: "listServerSettingsVersions", tag: tagSettings, needs: auth.SettingsRead,
		does: "The last 50 versions of the cluster's settings"}, a.serverVersions)
	register(a, operation{method: http.MethodPost, path: "/rest/v2/server-settings/versions/{version}/restore", id: "restoreServerSettings", tag: tagSettings, needs: auth.SettingsWrite,
		does: "Go back to an older version of the cluster's settings"}, a.restoreServer)
}

// app is an application's settings, or that there is none.
func (a *API) app(name string) (settings.App, error) {
	s, ok := a.deps.Settings.App(name)
	if !ok {
		return s, problem.New(problem.UnknownApp, fmt.Sprintf("there is no application %.40q", name))
	}
	return s, nil
}

type appSettingsOutput struct {
	Version int `header:"X-Settings-Version"`
	Body    settings.App
}

func (a *API) appSettings(ctx context.Context, in *InApp) (*appSettingsOutput, error) {
	if _, err := a.app(in.App); err != nil {
		return nil, err
	}
	list, err := a.deps.Settings.AppVersions(ctx, in.App)
	if err != nil {
		return nil, err
	}
	return &appSettingsOutput{list[0].Number, list[0].Settings.Hide()}, nil
}

// Expected is the version that somebody has seen and changes.
type Expected struct {
	Version int    `query:"version" minimum:"-1" default:"-1" doc:"The version that was seen: when it is not the present one, nothing is changed and the answer is 409. -1: whatever it is."`
	Note    string `query:"note" maxLength:"200" doc:"Why, for those who read the versions."`
}

func (e Expected) change(ctx context.Context) settings.Change {
	return settings.Change{By: auth.Of(ctx).Name, Note: e.Note, Version: e.Version}
}

type setAppInput struct {
	InApp
	Expected
	Body    settings.App
	RawBody []byte
}

// settingsOutput is the version that a change has made.
type settingsOutput struct {
	Version int `header:"X-Settings-Version"`
	Body    result
}

func changed(number int) *settingsOutput {
	return &settingsOutput{number, result{Success: true, Message: fmt.Sprintf("the settings have version %d", number)}}
}

func (a *API) setAppSettings(ctx context.Context, in *setAppInput) (*settingsOutput, error) {
	_, err := a.app(in.App)
	var v settings.Version[settings.App]
	if err == nil {
		v, err = a.deps.Settings.SetApp(ctx, in.App, in.change(ctx), func(s *settings.App) error {
			old := *s
			err := over(in.RawBody, s)
			s.Keep(old)
			return err
		})
	}
	a.record(ctx, "change settings", in.App, in.App, err)
	return changed(v.Number), err
}

// over reads JSON over what is there. The body has been checked against the schema.
func over(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return problem.New(problem.Invalid, "the settings can't be read: a member has another name or type than it should")
	}
	return nil
}

type appVersionsOutput struct {
	Body []settings.Version[settings.App]
}

func (a *API) appVersions(ctx context.Context, in *InApp) (*appVersionsOutput, error) {
	if _, err := a.app(in.App); err != nil {
		return nil, err
	}
	list, err := a.deps.Settings.AppVersions(ctx, in.App)
	for i := range list {
		list[i].Settings = list[i].Settings.Hide()
	}
	return &appVersionsOutput{list}, err
}

type restoreAppInput struct {
	InApp
	OfVersion
}

// OfVersion names a version.
type OfVersion struct {
	To int `path:"version" minimum:"0" maximum:"1000000000"`
}

func (a *API) restoreApp(ctx context.Context, in *restoreAppInput) (*settingsOutput, error) {
	v, err := a.deps.Settings.RollBackApp(ctx, in.App, auth.Of(ctx).Name, in.To)
	a.record(ctx, fmt.Sprintf("restore version %d of settings", in.To), in.App, in.App, err)
	return changed(v.Number), err
}

type serverSettingsOutput struct {
	Version int `header:"X-Settings-Version"`
	Body    settings.Cluster
}

func (a *API) serverSettings(ctx context.Context, _ *struct{}) (*serverSettingsOutput, error) {
	list, err := a.deps.Settings.ClusterVersions(ctx)
	if err != nil {
		return nil, err
	}
	return &serverSettingsOutput{list[0].Number, list[0].Settings.Hide()}, nil
}

type setServerInput struct {
	Expected
	Body    settings.Cluster
	RawBody []byte
}

func (a *API) setServerSettings(ctx context.Context, in *setServerInput) (*settingsOutput, error) {
	v, err := a.deps.Settings.SetCluster(ctx, in.change(ctx), func(s *settings.Cluster) error {
		old := *s
		err := over(in.RawBody, s)
		s.Keep(old)
		return err
	})
	a.record(ctx, "change settings", "cluster", "", err)
	return changed(v.Number), err
}

type serverVersionsOutput struct {
	Body []settings.Version[settings.Cluster]
}

func (a *API) serverVersions(ctx context.Context, _ *struct{}) (*serverVersionsOutput, error) {
	list, err := a.deps.Settings.ClusterVersions(ctx)
	for i := range list {
		list[i].Settings = list[i].Settings.Hide()
	}
	return &serverVersionsOutput{list}, err
}

func (a *API) restoreServer(ctx context.Context, in *OfVersion) (*settingsOutput, error) {
	v, err := a.deps.Settings.RollBackCluster(ctx, auth.Of(ctx).Name, in.To)
	a.record(ctx, fmt.Sprintf("restore version %d of settings", in.To), "cluster", "", err)
	return changed(v.Number), err
}
