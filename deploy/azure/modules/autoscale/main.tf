# When a scale set grows and shrinks: by the CPU of its machines, as in the seed, and by the cluster's own signal, which knows what comes.

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

variable "scale_set_id" {
  description = "The scale set."
  type        = string
}

variable "min" {
  description = "Fewest machines."
  type        = number
}

variable "max" {
  description = "Most machines."
  type        = number
}

variable "out_cpu" {
  description = "Mean CPU over 5 minutes, in percent, at which it grows."
  type        = number
}

variable "in_cpu" {
  description = "Mean CPU over 5 minutes, in percent, below which it may shrink."
  type        = number
}

locals {
  # By how many machines are missing, how many are added.
  missing = { 1 = 1, 4 = 4, 10 = 10 }
}

resource "azurerm_monitor_autoscale_setting" "this" {
  name                = var.name
  resource_group_name = var.resource_group
  location            = var.location
  target_resource_id  = var.scale_set_id
  tags                = var.tags

  profile {
    name = "load"

    capacity {
      default = var.min
      minimum = var.min
      maximum = var.max
    }

    # Out: any of these is enough.
    rule {
      metric_trigger {
        metric_name        = "Percentage CPU"
        metric_resource_id = var.scale_set_id
        time_grain         = "PT1M"
        statistic          = "Average"
        time_window        = "PT5M"
        time_aggregation   = "Average"
        operator           = "GreaterThan"
        threshold          = var.out_cpu
      }

      scale_action {
        direction = "Increase"
        type      = "ChangeCount"
        value     = "1"
        cooldown  = "PT5M"
      }
    }

    dynamic "rule" {
      for_each = local.missing
      content {
        metric_trigger {
          metric_namespace   = "Sluice"
          metric_name        = "Missing"
          metric_resource_id = var.scale_set_id
          time_grain         = "PT1M"
          statistic          = "Average"
          time_window        = "PT5M"
          time_aggregation   = "Last" # it is a mean already
          operator           = "GreaterThanOrEqual"
          threshold          = tonumber(rule.key)
        }

        scale_action {
          direction = "Increase"
          type      = "ChangeCount"
          value     = tostring(rule.value)
          cooldown  = "PT2M"
        }
      }
    }

    # In: only when all of these agree. Without the cluster's figures nothing shrinks.
    rule {
      metric_trigger {
        metric_name        = "Percentage CPU"
        metric_resource_id = var.scale_set_id
        time_grain         = "PT1M"
        statistic          = "Average"
        time_window        = "PT5M"
        time_aggregation   = "Average"
        operator           = "LessThan"
        threshold          = var.in_cpu
      }

      scale_action {
        direction = "Decrease"
        type      = "ChangeCount"
        value     = "1"
        cooldown  = "PT10M"
      }
    }

    rule {
      metric_trigger {
        metric_namespace   = "Sluice"
        metric_name        = "Missing"
        metric_resource_id = var.scale_set_id
        time_grain         = "PT1M"
        statistic          = "Average"
        time_window        = "PT5M"
        time_aggregation   = "Last"
        operator           = "LessThan"
        threshold          = 0
      }

      scale_action {
        direction = "Decrease"
        type      = "ChangeCount"
        value     = "1"
        cooldown  = "PT10M"
      }
    }
  }
}
