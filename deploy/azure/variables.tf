variable "subscription_id" {
  description = "Azure subscription in which everything is made."
  type        = string
}

variable "name" {
  description = "Beginning of all names: lower-case letters and digits, since names of vaults and storage accounts are made of it and must be unique in the world."
  type        = string
  default     = "sluice"

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{2,11}$", var.name))
    error_message = "3 to 12 lower-case letters and digits, a letter first."
  }
}

variable "location" {
  description = "Azure region, as in `az account list-locations`: near the viewers."
  type        = string
  default     = "westeurope"
}

variable "package" {
  description = "Path of the Debian package that `make release` has made, for the architecture of the machines."
  type        = string
}

variable "ssh_public_key" {
  description = "Public key of whoever may log in to machines, such as file(\"~/.ssh/id_ed25519.pub\"). Port 22 is closed to the world: use `az vmss run-command`, a bastion or a VPN."
  type        = string
}

variable "operators" {
  description = "Addresses from which this is applied, such as [\"203.0.113.7\"]: the vault and the storage account let only them and the cluster's subnets in."
  type        = list(string)
}

variable "network" {
  description = "Address space of the virtual network, a /20 or larger."
  type        = string
  default     = "10.0.0.0/16"
}

variable "gateway" {
  description = "What stands before the nodes: application-gateway (Azure's, as in the seed; it does not know streams) or sluice (ours, on two machines behind a load balancer)."
  type        = string
  default     = "application-gateway"

  validation {
    condition     = contains(["application-gateway", "sluice"], var.gateway)
    error_message = "application-gateway or sluice."
  }
}

variable "registry" {
  description = "Where the registry is: mongodb (a machine of its own, backed up daily) or cosmos (Azure Cosmos DB for MongoDB vCore)."
  type        = string
  default     = "mongodb"

  validation {
    condition     = contains(["mongodb", "cosmos"], var.registry)
    error_message = "mongodb or cosmos."
  }
}

variable "cosmos_password" {
  description = "Password of Cosmos DB's administrator, only for registry = \"cosmos\". Give it as TF_VAR_cosmos_password. It is in the state, as with every user of azurerm: keep that encrypted and to yourself. The machine's MongoDB needs none: it makes its own."
  type        = string
  default     = null
  sensitive   = true
}

variable "certificate_secret_id" {
  description = "Secret id of a certificate in a Key Vault (PFX for application-gateway, PEM for sluice), without its version, so that a renewed one is taken. null: one is made for the test, which browsers don't trust. The cluster's identities need the role Key Vault Secrets User on that vault."
  type        = string
  default     = null
}

variable "architecture" {
  description = "Processors of the machines: amd64 or arm64. The package and the sizes must fit."
  type        = string
  default     = "amd64"

  validation {
    condition     = contains(["amd64", "arm64"], var.architecture)
    error_message = "amd64 or arm64."
  }
}

variable "origins" {
  description = "Scale set of the origins, which take publishers: size of a machine, and least and most of them. `sluice plan` says how many."
  type = object({
    size = optional(string, "Standard_D2as_v5")
    min  = optional(number, 2)
    max  = optional(number, 10)
  })
  default = {}

  validation {
    condition     = var.origins.min >= 1 && var.origins.max >= var.origins.min
    error_message = "At least one, and max is not below min."
  }
}

variable "edges" {
  description = "Scale set of the edges, which serve viewers: size of a machine, and least and most of them. `sluice plan` says how many."
  type = object({
    size = optional(string, "Standard_D4as_v5")
    min  = optional(number, 2)
    max  = optional(number, 20)
  })
  default = {}

  validation {
    condition     = var.edges.min >= 1 && var.edges.max >= var.edges.min
    error_message = "At least one, and max is not below min."
  }
}

variable "scale_out_cpu" {
  description = "Mean CPU over 5 minutes, in percent, at which a scale set grows."
  type        = number
  default     = 60
}

variable "scale_in_cpu" {
  description = "Mean CPU over 5 minutes, in percent, below which a scale set may shrink, if the cluster's own signal agrees."
  type        = number
  default     = 30
}

variable "drain_minutes" {
  description = "How long a machine that must go has to move its clients: 5 to 15. It goes as soon as it is empty."
  type        = number
  default     = 10

  validation {
    condition     = var.drain_minutes >= 5 && var.drain_minutes <= 15
    error_message = "5 to 15 minutes: what Azure gives."
  }
}

variable "settings" {
  description = "Other settings of all nodes, as in sluice.yaml: { \"node.limits.egress\" = \"2000\" }."
  type        = map(string)
  default     = {}
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
