# The vault: the certificate, and what the registry says of itself. The identities by which machines read it: no machine gets a password.

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

variable "subnets" {
  description = "Ids of subnets that may read."
  type        = list(string)
}

variable "operators" {
  description = "Addresses of people that may."
  type        = list(string)
}

variable "certificate_secret_id" {
  description = "A certificate that exists; null: one is made."
  type        = string
}

variable "host" {
  description = "Name that the certificate is made for."
  type        = string
}

variable "pem" {
  description = "Whether it is made as PEM, for Sluice's gateway, or as PFX, for Azure's."
  type        = bool
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
}

data "azurerm_client_config" "current" {}

resource "azurerm_key_vault" "this" {
  name                       = "${var.name}-${var.unique}"
  resource_group_name        = var.resource_group
  location                   = var.location
  tenant_id                  = data.azurerm_client_config.current.tenant_id
  sku_name                   = "standard"
  rbac_authorization_enabled = true
  purge_protection_enabled   = false
  soft_delete_retention_days = 7
  tags                       = var.tags

  network_acls {
    default_action             = "Deny"
    bypass                     = "AzureServices"
    ip_rules                   = var.operators
    virtual_network_subnet_ids = var.subnets
  }
}

# node: origins, edges and gateways. registry: the machine of MongoDB, which alone may write.
resource "azurerm_user_assigned_identity" "this" {
  for_each = toset(["node", "registry"])

  name                = "${var.name}-${each.key}"
  resource_group_name = var.resource_group
  location            = var.location
  tags                = var.tags
}

resource "azurerm_role_assignment" "operator" {
  scope                = azurerm_key_vault.this.id
  role_definition_name = "Key Vault Administrator"
  principal_id         = data.azurerm_client_config.current.object_id
}

resource "azurerm_role_assignment" "node" {
  scope                = azurerm_key_vault.this.id
  role_definition_name = "Key Vault Secrets User"
  principal_id         = azurerm_user_assigned_identity.this["node"].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "registry" {
  scope                = azurerm_key_vault.this.id
  role_definition_name = "Key Vault Secrets Officer"
  principal_id         = azurerm_user_assigned_identity.this["registry"].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_key_vault_certificate" "test" {
  count = var.certificate_secret_id == null ? 1 : 0

  name         = "gateway"
  key_vault_id = azurerm_key_vault.this.id
  tags         = var.tags

  certificate_policy {
    issuer_parameters {
      name = "Self"
    }

    key_properties {
      exportable = true
      key_type   = "RSA" # Application Gateway takes no other from a vault
      key_size   = 2048
      reuse_key  = false
    }

    lifetime_action {
      action {
        action_type = "AutoRenew"
      }
      trigger {
        days_before_expiry = 30
      }
    }

    secret_properties {
      content_type = var.pem ? "application/x-pem-file" : "application/x-pkcs12"
    }

    x509_certificate_properties {
      subject            = "CN=${var.host}"
      validity_in_months = 12
      key_usage          = ["digitalSignature", "keyEncipherment"]
      extended_key_usage = ["1.3.6.1.5.5.7.3.1"]

      subject_alternative_names {
        dns_names = [var.host]
      }
    }
  }

  depends_on = [azurerm_role_assignment.operator]
}

output "id" {
  description = "The vault."
  value       = azurerm_key_vault.this.id
}

output "uri" {
  description = "Address of the vault, with a slash at the end."
  value       = azurerm_key_vault.this.vault_uri
}

output "certificate_secret_id" {
  description = "The certificate, without a version: a renewed one is taken."
  value       = var.certificate_secret_id != null ? var.certificate_secret_id : azurerm_key_vault_certificate.test[0].versionless_secret_id
}

output "identities" {
  description = "Id, client id and principal id of the identities node and registry, which may do what they must."
  value       = { for key, i in azurerm_user_assigned_identity.this : key => { id = i.id, client_id = i.client_id, principal_id = i.principal_id } }
  depends_on  = [azurerm_role_assignment.node, azurerm_role_assignment.registry]
}
