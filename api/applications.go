package api

import (
	"context"
	"net/http"

	"sluice/internal/auth"
)

func (a *API) applications() {
	register(a, operation{method: http.MethodGet, path: "/rest/v2/applications", id: "listApplications", tag: tagSettings, needs: auth.AppsRead, inSome: true,
		does: "The names of the applications", more: "Those that one may see."}, a.listApps)
	register(a, operation{method: http.MethodPost, path: "/rest/v2/applications/{app}", id: "makeApplication", tag: tagSettings, needs: auth.AppsWrite,
		does: "Make an application", more: "Its name is 1 to 32 letters, digits, '-' or '_'. Every node has it within two seconds."}, a.makeApp)
	register(a, operation{method: http.MethodDelete, path: "/rest/v2/applications/{app}", id: "deleteApplication", tag: tagSettings, needs: auth.AppsWrite,
		does: "Delete an application", more: "Nobody can publish to it or play from it any more."}, a.deleteApp)
}

type appsOutput struct {
	Body struct {
		Applications []string `json:"applications" nullable:"false"`
	}
}

// visible are the applications in which somebody may do something.
func (a *API) visible(ctx context.Context, do auth.Action) (names []string) {
	id := auth.Of(ctx)
	for _, name := range a.deps.Settings.Apps() {
		if auth.Can(id, do, name) {
			names = append(names, name)
		}
	}
	return names
}

func (a *API) listApps(ctx context.Context, _ *struct{}) (*appsOutput, error) {
	out := new(appsOutput)
	out.Body.Applications = append([]string{}, a.visible(ctx, auth.AppsRead)...)
	return out, nil
}

func (a *API) makeApp(ctx context.Context, in *InApp) (*answer, error) {
	err := a.deps.Settings.AddApp(ctx, in.App, auth.Of(ctx).Name)
	a.record(ctx, "make an application", in.App, in.App, err)
	return done("the application was made"), err
}

func (a *API) deleteApp(ctx context.Context, in *InApp) (*answer, error) {
	err := a.deps.Settings.RemoveApp(ctx, in.App, auth.Of(ctx).Name)
	a.record(ctx, "delete an application", in.App, in.App, err)
	return done("the application was deleted"), err
}
