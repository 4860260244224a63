# Azure Cosmos DB for MongoDB vCore in place of a machine with MongoDB. It is reached by a private endpoint only.

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

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
}

variable "unique" {
  description = "Letters and digits that make names unique in the world."
  type        = string
}

variable "network_id" {
  description = "The virtual network."
  type        = string
}

variable "subnet_id" {
  description = "The registry's subnet."
  type        = string
}

variable "vault_id" {
  description = "Where the connection string goes."
  type        = string
}

variable "password" {
  description = "Password of the administrator."
  type        = string
  sensitive   = true

  validation {
    condition     = can(regex("^[A-Za-z0-9]{16,128}$", var.password))
    error_message = "16 to 128 letters and digits: give it as TF_VAR_cosmos_password."
  }
}

resource "azurerm_mongo_cluster" "this" {
  name                   = "${var.name}-${var.unique}"
  resource_group_name    = var.resource_group
  location               = var.location
  administrator_username = "sluice"
  administrator_password = var.password
  compute_tier           = "M30"
  high_availability_mode = "ZoneRedundantPreferred"
  shard_count            = 1
  storage_size_in_gb     = 32
  version                = "8.0"
  public_network_access  = "Disabled"
  tags                   = var.tags
}

resource "azurerm_private_dns_zone" "this" {
  name                = "privatelink.mongocluster.cosmos.azure.com"
  resource_group_name = var.resource_group
  tags                = var.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "this" {
  name                = "${var.name}-registry"
  private_dns_zone_id = azurerm_private_dns_zone.this.id
  virtual_network_id  = var.network_id
  tags                = var.tags
}

resource "azurerm_private_endpoint" "this" {
  name                = "${var.name}-registry"
  resource_group_name = var.resource_group
  location            = var.location
  subnet_id           = var.subnet_id
  tags                = var.tags

  private_service_connection {
    name                           = "registry"
    private_connection_resource_id = azurerm_mongo_cluster.this.id
    subresource_names              = ["MongoCluster"]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "registry"
    private_dns_zone_ids = [azurerm_private_dns_zone.this.id]
  }
}

resource "azurerm_key_vault_secret" "url" {
  name         = "registry-url"
  key_vault_id = var.vault_id
  tags         = var.tags

  value = "mongodb+srv://sluice:${var.password}@${azurerm_mongo_cluster.this.name}.global.mongocluster.cosmos.azure.com/sluice?tls=true&authMechanism=SCRAM-SHA-256&retrywrites=false&maxIdleTimeMS=120000"
}
