package main

import (
	"io"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/gorilla/mux"
	"github.com/labstack/echo/v4"
)

func ginHandler(receive receiver) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultWriter = io.Discard
	engine := gin.New()
	engine.Use(gin.Recovery())
	engine.GET("/call/:id", func(c *gin.Context) {
		answer(c.Writer, c.Request, receive, c.Param("id"), c.FullPath())
	})
	return engine
}

func echoHandler(receive receiver) http.Handler {
	e := echo.New()
	e.GET("/call/:id", func(c echo.Context) error {
		answer(c.Response(), c.Request(), receive, c.Param("id"), c.Path())
		return nil
	})
	return e
}

func chiHandler(receive receiver) http.Handler {
	router := chi.NewRouter()
	router.Get("/call/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, receive, chi.URLParam(r, "id"), chi.RouteContext(r.Context()).RoutePattern())
	})
	return router
}

func gorillaHandler(receive receiver) http.Handler {
	router := mux.NewRouter()
	router.HandleFunc("/call/{id}", func(w http.ResponseWriter, r *http.Request) {
		route, err := mux.CurrentRoute(r).GetPathTemplate()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, r, receive, mux.Vars(r)["id"], route)
	})
	return router
}
