"""Composition root of registry: acts on prompts and workflows come in, `core` decides, `effects` stores."""

from bulkhead.prompts.files import Prompts
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.context import Context
from bulkhead.runtime.process.main import main
from bulkhead.tools import catalog
from bulkhead_services.registry.effects import PromptRegistry
from bulkhead_services.registry.settings import Settings


def build(context: Context, settings: Settings) -> PromptRegistry:
    """The edge. Raises PromptError, PackError, and ValueError for a tenants file that cannot be read."""
    quotas = TenantQuotas(settings.tenants_file)
    tools = tuple(row.spec for row in catalog.tool_rows(settings.packs))
    prompts = Prompts(packs=settings.packs)
    return PromptRegistry(context, prompts, settings.max_age_ms, quotas, settings.canary_tasks, tools)


if __name__ == "__main__":
    main("registry", build, Settings)
