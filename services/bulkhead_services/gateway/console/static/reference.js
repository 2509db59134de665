"use strict";

{
  const theme = document.documentElement.dataset.theme;
  const isDark = theme === "dark" || (theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.classList.toggle("dark-mode", isDark);
  SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#reference",
    deepLinking: true,
    defaultModelExpandDepth: 3,
    defaultModelsExpandDepth: -1,
    docExpansion: "list",
    filter: true,
    validatorUrl: null,
  });
}
