"""The route of a call by the version of its prompt, pure. In: routes, a version's content. Out: the models to ask.

A pin is of a model that a route of this mesh has: its price, its terms and its provider's place stand there, so that a
version of a prompt gets round no budget and no tenant's policy.
"""

from collections.abc import Mapping
from dataclasses import replace

from bulkhead_contracts.prompt import ModelParameters, PromptContent
from bulkhead_services.model_gateway.attempts import Model
from bulkhead_services.model_gateway.routing.chain import Route


def route_of_version(routes: Mapping[str, Route], route: Route, content: PromptContent) -> Route | None:
    """The models of a version's model and parameters, where `route` would be asked without; None where no route has
    the model."""
    if content.model:
        named_route = routes.get(content.model) or _route_to_pinned(routes, content.model)
        if named_route is None:
            return None
        route = replace(named_route, prompts=route.prompts)
    return with_parameters(route, content.parameters)


def with_parameters(route: Route, parameters: ModelParameters) -> Route:
    """The same models with these parameters over their own."""
    values = parameters.model_dump(exclude={"max_output_tokens"})
    if not values and not parameters.max_output_tokens:
        return route

    def changed(model: Model) -> Model:
        most = min(parameters.max_output_tokens or model.max_output_tokens, model.max_output_tokens)
        return replace(model, parameters={**model.parameters, **values}, max_output_tokens=most)

    return replace(
        route,
        primary=changed(route.primary),
        fallbacks=tuple(map(changed, route.fallbacks)),
        escalation=tuple(map(changed, route.escalation)),
    )


def _route_to_pinned(routes: Mapping[str, Route], pin: str) -> Route | None:
    """The one model `provider/model`, without those that stand in for it."""
    models = (model for route in routes.values() for model in route.models_for(2))
    pinned = next((model for model in models if f"{model.provider.name}/{model.name}" == pin), None)
    return Route(pinned) if pinned is not None else None
