# The virtual network: a subnet each for gateway, origins, edges and registry, and who may speak to whom. Nothing else gets in.

variable "name" {
  description = "Beginning of all names."
  type        = string
}

variable "resource_group" {
  description = "Name of the resource group."
  type        = string
}

variable "location" {
  description = "Azure region."
  type        = string
}

variable "network" {
  description = "Address space, a /20 or larger."
  type        = string
}

variable "application_gateway" {
  description = "Whether Azure's Application Gateway is in the gateway's subnet: its managers need ports of their own."
  type        = bool
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
}

locals {
  subnets = {
    gateway  = cidrsubnet(var.network, 8, 0)
    origin   = cidrsubnet(var.network, 8, 1)
    edge     = cidrsubnet(var.network, 6, 1)
    registry = cidrsubnet(var.network, 8, 2)
  }

  nodes = [local.subnets.origin, local.subnets.edge]

  # What nodes let in. Media comes from everywhere, straight to the node; the rest from inside only.
  node_rules = {
    media-udp = { priority = 100, protocol = "Udp", ports = ["50000"], from = ["Internet"] }
    media-tcp = { priority = 110, protocol = "Tcp", ports = ["50000"], from = ["Internet"] }
    relay     = { priority = 120, protocol = "Udp", ports = ["5000"], from = local.nodes }
    http      = { priority = 130, protocol = "Tcp", ports = ["5080"], from = [local.subnets.gateway] }
  }

  rules = {
    gateway = merge({
      https  = { priority = 100, protocol = "Tcp", ports = ["80", "443", "5443"], from = ["Internet"] }
      probes = { priority = 110, protocol = "Tcp", ports = ["80", "443", "5443"], from = ["AzureLoadBalancer"] }
      }, var.application_gateway ? {
      managers = { priority = 120, protocol = "Tcp", ports = ["65200-65535"], from = ["GatewayManager"] } # Azure's own, signed; it refuses to start without
    } : {})
    origin = local.node_rules
    edge   = local.node_rules
    registry = {
      mongodb = { priority = 100, protocol = "Tcp", ports = ["27017"], from = concat([local.subnets.gateway], local.nodes) }
    }
  }
}

resource "azurerm_virtual_network" "this" {
  name                = "${var.name}-network"
  resource_group_name = var.resource_group
  location            = var.location
  address_space       = [var.network]
  tags                = var.tags
}

resource "azurerm_subnet" "this" {
  for_each = local.subnets

  name                 = "${var.name}-${each.key}"
  resource_group_name  = var.resource_group
  virtual_network_name = azurerm_virtual_network.this.name
  address_prefixes     = [each.value]

  dynamic "service_endpoint" {
    for_each = ["Microsoft.KeyVault", "Microsoft.Storage"] # which let these subnets in, and no others
    content {
      service = service_endpoint.value
    }
  }
}

resource "azurerm_network_security_group" "this" {
  for_each = local.rules

  name                = "${var.name}-${each.key}"
  resource_group_name = var.resource_group
  location            = var.location
  tags                = var.tags

  dynamic "security_rule" {
    for_each = each.value
    content {
      name                       = security_rule.key
      priority                   = security_rule.value.priority
      direction                  = "Inbound"
      access                     = "Allow"
      protocol                   = security_rule.value.protocol
      source_address_prefix      = length(security_rule.value.from) == 1 ? security_rule.value.from[0] : null
      source_address_prefixes    = length(security_rule.value.from) > 1 ? security_rule.value.from : null
      source_port_range          = "*"
      destination_address_prefix = "*"
      destination_port_ranges    = security_rule.value.ports
    }
  }

  # Azure's own rules let the whole virtual network in.
  security_rule {
    name                       = "nothing-else"
    priority                   = 4096
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_address_prefix      = "*"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }
}

resource "azurerm_subnet_network_security_group_association" "this" {
  for_each = local.subnets

  subnet_id                 = azurerm_subnet.this[each.key].id
  network_security_group_id = azurerm_network_security_group.this[each.key].id
}

# The registry has no public address. It gets its packages this way.
resource "azurerm_public_ip" "nat" {
  name                = "${var.name}-nat"
  resource_group_name = var.resource_group
  location            = var.location
  allocation_method   = "Static"
  sku                 = "Standard"
  tags                = var.tags
}

resource "azurerm_nat_gateway" "this" {
  name                = "${var.name}-nat"
  resource_group_name = var.resource_group
  location            = var.location
  tags                = var.tags
}

resource "azurerm_nat_gateway_public_ip_association" "this" {
  nat_gateway_id       = azurerm_nat_gateway.this.id
  public_ip_address_id = azurerm_public_ip.nat.id
}

resource "azurerm_subnet_nat_gateway_association" "registry" {
  subnet_id      = azurerm_subnet.this["registry"].id
  nat_gateway_id = azurerm_nat_gateway.this.id
}

output "network_id" {
  description = "The virtual network."
  value       = azurerm_virtual_network.this.id
}

output "subnets" {
  description = "Ids of the subnets by gateway, origin, edge and registry. Their rules are in place."
  value       = { for key, s in azurerm_subnet.this : key => s.id }
  depends_on  = [azurerm_subnet_network_security_group_association.this, azurerm_subnet_nat_gateway_association.registry]
}

output "prefixes" {
  description = "Addresses of the subnets."
  value       = local.subnets
}
