package settings

// Access is who may publish to an application and play from it.
type Access struct{}
