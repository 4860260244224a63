terraform {
  required_version = ">= 1.8"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 5.2, < 6"
    }
  }
}

provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true # the storage account has no keys

  features {
    key_vault {
      purge_soft_delete_on_destroy = false # a certificate may be wanted back
    }
  }
}
