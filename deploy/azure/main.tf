# The seed's cluster, in the seed's order. docs/deploy/azure.md leads through it.

# Step 1: a resource group. All is in it, and goes with it.
resource "azurerm_resource_group" "this" {
  name     = "${var.name}-cluster"
  location = var.location
  tags     = var.tags
}

locals {
  unique = substr(sha256("${var.subscription_id}/${var.name}/${var.location}"), 0, 8)
  host   = "${var.name}-${local.unique}"

  azure_gateway = var.gateway == "application-gateway"
  own_registry  = var.registry == "mongodb"

  # Scale sets, by the ids that they will have: the signal names them before they are there.
  scale_sets = { for role in ["origin", "edge"] : role => "${azurerm_resource_group.this.id}/providers/Microsoft.Compute/virtualMachineScaleSets/${var.name}-${role}" }

  # Whoever tells the scaling signal: Sluice's gateways, or beside Azure's gateway the origins.
  signal = join(" ", [
    "gateway.scale.cpu=${var.scale_out_cpu / 100}",
    "gateway.scale.azure.endpoint=https://${var.location}.monitoring.azure.com",
    "gateway.scale.azure.edges=${local.scale_sets.edge}",
    "gateway.scale.azure.origins=${local.scale_sets.origin}",
  ])

  # What all machines are told; cloud-init/node.sh says what it does with it.
  common = {
    CLIENT         = module.vault.identities.node.client_id
    PACKAGE_URL    = module.package.url
    PACKAGE_SHA256 = module.package.sha256
    STORE_SECRET   = "${module.vault.uri}secrets/registry-url"
    CA_SECRET      = local.own_registry ? "${module.vault.uri}secrets/registry-ca" : ""
  }

  node = merge(local.common, {
    PUBLIC_ADDRESS  = "auto"
    CLOUD_NOTICE    = "azure"
    TRUSTED_PROXIES = module.network.prefixes.gateway
    SETTINGS        = join(" ", concat(["node.publish-url=:443", "node.play-url=:5443"], [for key, value in var.settings : "${key}=${value}"]))
  })
}

# Step 2: the virtual network with its subnets, and who may speak to whom.
module "network" {
  source              = "./modules/network"
  name                = var.name
  resource_group      = azurerm_resource_group.this.name
  location            = var.location
  network             = var.network
  application_gateway = local.azure_gateway
  tags                = var.tags
}

# Secrets, the certificate, and identities that may read them.
module "vault" {
  source                = "./modules/vault"
  name                  = var.name
  resource_group        = azurerm_resource_group.this.name
  location              = var.location
  unique                = local.unique
  subnets               = values(module.network.subnets)
  operators             = var.operators
  certificate_secret_id = var.certificate_secret_id
  host                  = "${local.host}.${var.location}.cloudapp.azure.com"
  pem                   = !local.azure_gateway
  tags                  = var.tags
}

# The seed takes an image from a marketplace; here it is the package that you have made.
module "package" {
  source         = "./modules/package"
  name           = var.name
  resource_group = azurerm_resource_group.this.name
  location       = var.location
  unique         = local.unique
  path           = var.package
  subnets        = values(module.network.subnets)
  operators      = var.operators
  reader         = module.vault.identities.node.principal_id
  tags           = var.tags
}

# Step 3: MongoDB, on a machine of its own or as a service.
module "registry" {
  source         = "./modules/registry"
  count          = local.own_registry ? 1 : 0
  name           = var.name
  resource_group = azurerm_resource_group.this.name
  location       = var.location
  subnet_id      = module.network.subnets.registry
  identity       = module.vault.identities.registry
  vault_uri      = module.vault.uri
  ssh_public_key = var.ssh_public_key
  architecture   = var.architecture
  tags           = var.tags
}

module "cosmos" {
  source         = "./modules/cosmos"
  count          = local.own_registry ? 0 : 1
  name           = var.name
  resource_group = azurerm_resource_group.this.name
  location       = var.location
  unique         = local.unique
  network_id     = module.network.network_id
  subnet_id      = module.network.subnets.registry
  vault_id       = module.vault.id
  password       = var.cosmos_password
  tags           = var.tags
}

# Step 4: the gateway, Azure's or Sluice's.
module "application_gateway" {
  source                = "./modules/application-gateway"
  count                 = local.azure_gateway ? 1 : 0
  name                  = var.name
  resource_group        = azurerm_resource_group.this.name
  location              = var.location
  subnet_id             = module.network.subnets.gateway
  identity_id           = module.vault.identities.node.id
  certificate_secret_id = module.vault.certificate_secret_id
  host                  = local.host
  tags                  = var.tags
}

module "load_balancer" {
  source         = "./modules/load-balancer"
  count          = local.azure_gateway ? 0 : 1
  name           = var.name
  resource_group = azurerm_resource_group.this.name
  location       = var.location
  host           = local.host
  tags           = var.tags
}

module "gateways" {
  source              = "./modules/scale-set"
  count               = local.azure_gateway ? 0 : 1
  name                = var.name
  role                = "gateway"
  resource_group      = azurerm_resource_group.this.name
  location            = var.location
  size                = var.architecture == "arm64" ? "Standard_D2ps_v5" : "Standard_D2as_v5"
  instances           = 2
  subnet_id           = module.network.subnets.gateway
  identity_id         = module.vault.identities.node.id
  public_address      = false
  load_balancer_pools = [module.load_balancer[0].pool]
  drain_minutes       = var.drain_minutes
  ssh_public_key      = var.ssh_public_key
  architecture        = var.architecture
  tags                = var.tags

  values = merge(local.common, {
    ROLE               = "gateway"
    CERTIFICATE_SECRET = module.vault.certificate_secret_id
    SETTINGS           = local.signal
  })
}

# Step 5: the scale sets of origins and edges.
module "origins" {
  source                    = "./modules/scale-set"
  name                      = var.name
  role                      = "origin"
  resource_group            = azurerm_resource_group.this.name
  location                  = var.location
  size                      = var.origins.size
  instances                 = var.origins.min
  subnet_id                 = module.network.subnets.origin
  identity_id               = module.vault.identities.node.id
  public_address            = true
  application_gateway_pools = local.azure_gateway ? [module.application_gateway[0].pools.origin] : []
  drain_minutes             = var.drain_minutes
  ssh_public_key            = var.ssh_public_key
  architecture              = var.architecture
  tags                      = var.tags

  values = merge(local.node, {
    ROLE   = "origin"
    SIGNAL = local.azure_gateway ? local.signal : ""
  })
}

module "edges" {
  source                    = "./modules/scale-set"
  name                      = var.name
  role                      = "edge"
  resource_group            = azurerm_resource_group.this.name
  location                  = var.location
  size                      = var.edges.size
  instances                 = var.edges.min
  subnet_id                 = module.network.subnets.edge
  identity_id               = module.vault.identities.node.id
  public_address            = true
  application_gateway_pools = local.azure_gateway ? [module.application_gateway[0].pools.edge] : []
  drain_minutes             = var.drain_minutes
  ssh_public_key            = var.ssh_public_key
  architecture              = var.architecture
  tags                      = var.tags

  values = merge(local.node, { ROLE = "edge" })
}

# They grow at 60 % CPU, as in the seed, and shrink again.
module "autoscale" {
  source = "./modules/autoscale"
  for_each = {
    origin = { id = module.origins.id, limits = var.origins }
    edge   = { id = module.edges.id, limits = var.edges }
  }
  name           = "${var.name}-${each.key}"
  resource_group = azurerm_resource_group.this.name
  location       = var.location
  scale_set_id   = each.value.id
  min            = each.value.limits.min
  max            = each.value.limits.max
  out_cpu        = var.scale_out_cpu
  in_cpu         = var.scale_in_cpu
  tags           = var.tags
}

# The signal is written by the machines' identity.
resource "azurerm_role_assignment" "signal" {
  for_each = { origin = module.origins.id, edge = module.edges.id }

  scope                = each.value
  role_definition_name = "Monitoring Metrics Publisher"
  principal_id         = module.vault.identities.node.principal_id
  principal_type       = "ServicePrincipal"
}
