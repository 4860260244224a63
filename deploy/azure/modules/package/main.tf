# The Debian package, where the machines get it from. They compare its checksum, which they are told another way.

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

variable "unique" {
  description = "Letters and digits that make names unique in the world."
  type        = string
}

variable "path" {
  description = "The package on this machine."
  type        = string
}

variable "subnets" {
  description = "Ids of subnets that may read."
  type        = list(string)
}

variable "operators" {
  description = "Addresses of people that may write."
  type        = list(string)
}

variable "reader" {
  description = "Principal id of the machines' identity."
  type        = string
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
}

data "azurerm_client_config" "current" {}

resource "azurerm_storage_account" "this" {
  name                            = "${var.name}${var.unique}"
  resource_group_name             = var.resource_group
  location                        = var.location
  account_tier                    = "Standard"
  account_replication_type        = "ZRS"
  min_tls_version                 = "TLS1_2"
  shared_access_key_enabled       = false
  allow_nested_items_to_be_public = false
  tags                            = var.tags

  network_rules {
    default_action             = "Deny"
    ip_rules                   = var.operators
    virtual_network_subnet_ids = var.subnets
  }
}

resource "azurerm_role_assignment" "operator" {
  scope                = azurerm_storage_account.this.id
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = data.azurerm_client_config.current.object_id
}

resource "azurerm_role_assignment" "machines" {
  scope                = azurerm_storage_account.this.id
  role_definition_name = "Storage Blob Data Reader"
  principal_id         = var.reader
  principal_type       = "ServicePrincipal"
}

resource "azurerm_storage_container" "this" {
  name               = "releases"
  storage_account_id = azurerm_storage_account.this.id
}

resource "azurerm_storage_blob" "this" {
  name                 = "${filesha256(var.path)}.deb"
  storage_container_id = azurerm_storage_container.this.id
  type                 = "Block"
  source               = var.path
  depends_on           = [azurerm_role_assignment.operator]
}

output "url" {
  description = "Where it is, for those who have a token."
  value       = azurerm_storage_blob.this.url
  depends_on  = [azurerm_role_assignment.machines]
}

output "sha256" {
  description = "Its checksum."
  value       = filesha256(var.path)
}
