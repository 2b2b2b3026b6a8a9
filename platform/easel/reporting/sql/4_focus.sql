-- Charges in the format of the FinOps Open Cost and Usage Specification 1.2 (https://focus.finops.org). A usage row sums
-- the charges of one day, project, price and all other attributes; waived amounts reduce BilledCost and EffectiveCost
-- only. Further rows are adjustments, and the taxes of final statements.
CREATE VIEW reporting.focus AS
WITH usage AS (
         SELECT cost.day, cost.tenant_id, cost.project_id, cost.labels, cost.pool, cost.model, cost.model_version,
                cost.adapter, cost.quality, cost.tier, cost.resolution, cost.api_key, cost.gpu_class, cost.storage_kind,
                cost.meter, cost.currency, cost.rate_id, cost.contract_id, cost.discount, cost.credit_note_id,
                cost.kind = 'correction' OR cost.credit_note_id IS NOT NULL AS is_correction,
                coalesce(note.number, statement.number)                     AS invoice,
                coalesce(note.period_start, statement.period_start, greatest(
                    date_trunc('month', cost.booked_at, coalesce(profile.time_zone, 'UTC')), closed.until)) AS period_start,
                coalesce(note.period_end, statement.period_end,
                    (date_trunc('month', cost.booked_at AT TIME ZONE coalesce(profile.time_zone, 'UTC'))
                     + interval '1 month') AT TIME ZONE coalesce(profile.time_zone, 'UTC'))  AS period_end,
                sum(cost.quantity)                                          AS quantity,
                sum(cost.charges)                                           AS charges,
                sum(cost.amount_micros)                                     AS billed,
                coalesce(sum(cost.amount_micros) FILTER (WHERE cost.kind <> 'waiver'), 0) AS contracted,
                coalesce(sum(cost.list_micros) FILTER (WHERE cost.kind <> 'waiver'), 0)   AS list
           FROM reporting.costs cost
           LEFT JOIN billing_statement note ON note.id = cost.credit_note_id
           LEFT JOIN billing_statement statement
             ON statement.tenant_id = cost.tenant_id AND statement.kind = 'statement' AND cost.credit_note_id IS NULL
            AND cost.booked_at >= statement.period_start AND cost.booked_at < statement.period_end
           LEFT JOIN billing_billingprofile profile ON profile.tenant_id = cost.tenant_id
           LEFT JOIN (SELECT tenant_id, max(period_end) AS until FROM billing_statement
                       WHERE kind = 'statement' GROUP BY tenant_id) closed ON closed.tenant_id = cost.tenant_id
          GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24
     ), adjusted AS (
         SELECT adjustment.*, project.slug AS project, project.labels,
                coalesce(own.number, statement.number) AS invoice,
                coalesce(own.period_start, statement.period_start, greatest(
                    date_trunc('month', adjustment.created_at, coalesce(profile.time_zone, 'UTC')), closed.until)) AS period_start,
                coalesce(own.period_end, statement.period_end,
                    (date_trunc('month', adjustment.created_at AT TIME ZONE coalesce(profile.time_zone, 'UTC'))
                     + interval '1 month') AT TIME ZONE coalesce(profile.time_zone, 'UTC'))  AS period_end,
                own.id IS NOT NULL AS of_period
           FROM billing_adjustment adjustment
           LEFT JOIN tenants_project project ON project.id = adjustment.project_id
           LEFT JOIN billing_statement own ON own.id = adjustment.statement_id
           LEFT JOIN billing_statement statement
             ON statement.tenant_id = adjustment.tenant_id AND statement.kind = 'statement' AND own.id IS NULL
            AND adjustment.created_at >= statement.period_start AND adjustment.created_at < statement.period_end
           LEFT JOIN billing_billingprofile profile ON profile.tenant_id = adjustment.tenant_id
           LEFT JOIN (SELECT tenant_id, max(period_end) AS until FROM billing_statement
                       WHERE kind = 'statement' GROUP BY tenant_id) closed ON closed.tenant_id = adjustment.tenant_id
          -- A write-off is no new cost: its debt is in the rows of the charges.
          WHERE adjustment.kind <> 'write_off'
     ), taxed AS (
         SELECT statement.*,
                round(statement.tax_rate * (sums.list - sums.billed + statement.subtotal_micros))       AS tax_list,
                round(statement.tax_rate * (sums.contracted - sums.billed + statement.subtotal_micros)) AS tax_contracted
           FROM billing_statement statement
          CROSS JOIN LATERAL (
                 -- The statement's charges by each kind of cost, whose differences change the taxable amount.
                 SELECT coalesce(sum(amount_micros), 0)                                AS billed,
                        coalesce(sum(amount_micros) FILTER (WHERE kind <> 'waiver'), 0)   AS contracted,
                        coalesce(sum(list_micros) FILTER (WHERE kind <> 'waiver'), 0)     AS list
                   FROM reporting.costs cost
                  WHERE cost.tenant_id = statement.tenant_id
                    AND CASE statement.kind WHEN 'credit_note' THEN cost.credit_note_id = statement.id
                        ELSE cost.credit_note_id IS NULL AND cost.booked_at >= statement.period_start
                             AND cost.booked_at < statement.period_end END
                ) sums
          WHERE statement.state = 'final' AND statement.tax_micros <> 0
     ), line AS (
         SELECT usage.tenant_id, usage.invoice, usage.period_start, usage.period_end, usage.currency::text,
                'Usage' AS category,
                -- FOCUS calls a row a correction only if an earlier invoice had the charge.
                CASE WHEN usage.credit_note_id IS NOT NULL THEN 'Correction' END AS class,
                CASE usage.meter WHEN 'gpu_second' THEN 'GPU time' WHEN 'pool_second' THEN 'Dedicated workers'
                           WHEN 'image_unit' THEN 'Images, in units of 512x512 pixels' WHEN 'request' THEN 'Requests'
                           WHEN 'cache_hit' THEN 'Requests answered from the result cache'
                           WHEN 'storage_gb_second' THEN 'Storage of images and adapters' END
                    || CASE WHEN usage.model <> '' THEN ' of ' || usage.model ELSE '' END
                    || CASE WHEN is_correction THEN ', corrected' ELSE '' END AS description,
                day::timestamp AT TIME ZONE 'UTC' AS charge_start,
                (day + 1)::timestamp AT TIME ZONE 'UTC' AS charge_end,
                billed / 1e6 AS billed, contracted / 1e6 AS contracted, list / 1e6 AS list,
                usage.project_id, usage.labels, usage.quantity,
                CASE usage.meter WHEN 'gpu_second' THEN 'GPU-Seconds' WHEN 'pool_second' THEN 'Worker-Seconds'
                           WHEN 'image_unit' THEN 'Image Units' WHEN 'storage_gb_second' THEN 'GB-Seconds' ELSE 'Requests' END AS unit,
                usage.meter,
                -- A flat price as it is; for tiered prices, and for list prices under a contract, the average.
                CASE WHEN rate.mode = 'flat' OR usage.quantity = 0 THEN round(rate.unit_price * (1 - usage.discount), 15)
                     ELSE round(contracted / 1e6 / usage.quantity, 15) END AS contracted_price,
                CASE WHEN rate.mode = 'flat' AND book.tenant_id IS NULL OR usage.quantity = 0 THEN rate.unit_price
                     ELSE round(list / 1e6 / usage.quantity, 15) END AS list_price,
                concat_ws('/', usage.meter, nullif(rate.model, ''), nullif(rate.gpu_class, ''), nullif(rate.tier, '')) AS sku,
                rate.id AS rate_id, rate.mode, book.currency || '-' || book.version
                    || CASE WHEN book.tenant_id IS NOT NULL THEN '-own' ELSE '' END AS book,
                usage.discount, usage.charges, is_correction, usage.model, usage.model_version, usage.pool,
                usage.adapter, usage.quality, usage.tier, usage.resolution, usage.api_key, usage.gpu_class,
                usage.storage_kind, NULL::text AS adjustment
           FROM usage
           JOIN billing_rate rate ON rate.id = usage.rate_id
           JOIN billing_pricebook book ON book.id = rate.price_book_id
         UNION ALL
         SELECT tenant_id, invoice, period_start, period_end, currency::text, 'Adjustment', NULL, reason,
                CASE WHEN of_period THEN period_start ELSE date_trunc('day', created_at, 'UTC') END,
                CASE WHEN of_period THEN period_end ELSE date_trunc('day', created_at, 'UTC') + interval '24 hours' END,
                amount_micros / 1e6, amount_micros / 1e6, amount_micros / 1e6, project_id, labels,
                NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false,
                '', '', '', '', '', '', '', '', '', '', kind
           FROM adjusted
         UNION ALL
         SELECT tenant_id, number, period_start, period_end, currency::text, 'Tax',
                CASE kind WHEN 'credit_note' THEN 'Correction' END, tax_name || ' ' || trim_scale(tax_rate * 100) || ' %',
                period_start, period_end, tax_micros / 1e6, tax_contracted / 1e6, tax_list / 1e6, NULL, NULL,
                NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false,
                '', '', '', '', '', '', '', '', '', '', NULL
           FROM taxed
     )
SELECT line.billed                              AS "BilledCost",
       tenant.slug::text                        AS "BillingAccountId",
       coalesce(nullif(tenant.name, ''), tenant.slug)::text AS "BillingAccountName",
       'Tenant'::text                           AS "BillingAccountType",
       line.currency                            AS "BillingCurrency",
       line.period_end                          AS "BillingPeriodEnd",
       line.period_start                        AS "BillingPeriodStart",
       line.category                            AS "ChargeCategory",
       line.class                               AS "ChargeClass",
       line.description::text                   AS "ChargeDescription",
       CASE line.category WHEN 'Usage' THEN 'Usage-Based' ELSE 'One-Time' END AS "ChargeFrequency",
       line.charge_end                          AS "ChargePeriodEnd",
       line.charge_start                        AS "ChargePeriodStart",
       line.quantity                            AS "ConsumedQuantity",
       line.unit                                AS "ConsumedUnit",
       line.contracted                          AS "ContractedCost",
       line.contracted_price                    AS "ContractedUnitPrice",
       line.billed                              AS "EffectiveCost",
       line.invoice::text                       AS "InvoiceId",
       {provider}::text                         AS "InvoiceIssuerName",
       line.list                                AS "ListCost",
       line.list_price                          AS "ListUnitPrice",
       CASE line.category WHEN 'Usage' THEN 'Standard' END AS "PricingCategory",
       line.quantity                            AS "PricingQuantity",
       line.unit                                AS "PricingUnit",
       {provider}::text                         AS "ProviderName",
       {provider}::text                         AS "PublisherName",
       nullif(line.model_version, '')           AS "ResourceId",
       CASE WHEN line.model_version <> '' THEN line.model END           AS "ResourceName",
       CASE WHEN line.model_version <> '' THEN 'Model Version' END      AS "ResourceType",
       CASE line.meter WHEN 'storage_gb_second' THEN 'Storage' ELSE 'AI and Machine Learning' END AS "ServiceCategory",
       CASE line.meter WHEN 'storage_gb_second' THEN 'Image Storage' ELSE 'Image Generation' END  AS "ServiceName",
       CASE line.meter WHEN 'storage_gb_second' THEN 'Object Storage' ELSE 'Generative AI' END    AS "ServiceSubcategory",
       line.sku                                 AS "SkuId",
       CASE line.meter WHEN 'gpu_second' THEN 'GPU Seconds' WHEN 'pool_second' THEN 'Worker Seconds'
            WHEN 'image_unit' THEN 'Image Units' WHEN 'request' THEN 'Requests' WHEN 'cache_hit' THEN 'Cache Hits'
            WHEN 'storage_gb_second' THEN 'Storage' END AS "SkuMeter",
       CASE WHEN line.rate_id IS NOT NULL THEN jsonb_build_object('x_PriceBook', line.book, 'x_PriceMode', line.mode)
            END                                 AS "SkuPriceDetails",
       line.book || '/' || line.rate_id         AS "SkuPriceId",
       line.project_id::text                    AS "SubAccountId",
       project.slug::text                       AS "SubAccountName",
       CASE WHEN project.slug IS NOT NULL THEN 'Project' END AS "SubAccountType",
       line.labels                              AS "Tags",
       nullif(line.adapter, '')                 AS "x_Adapter",
       coalesce(line.adjustment, CASE line.category WHEN 'Usage' THEN
           CASE WHEN line.is_correction THEN 'correction' ELSE 'usage' END ELSE 'tax' END) AS "x_ChargeKind",
       line.charges::bigint                     AS "x_Charges",
       nullif(line.api_key, '')                 AS "x_ApiKeyId",
       line.discount                            AS "x_Discount",
       nullif(line.gpu_class, '')               AS "x_GpuClass",
       line.meter                               AS "x_Meter",
       nullif(line.model, '')                   AS "x_Model",
       nullif(line.pool, '')                    AS "x_Pool",
       nullif(line.quality, '')                 AS "x_Quality",
       nullif(line.resolution, '')              AS "x_Resolution",
       nullif(line.storage_kind, '')            AS "x_StorageKind",
       nullif(line.tier, '')                    AS "x_Tier"
  FROM line
  JOIN tenants_tenant tenant ON tenant.id = line.tenant_id
  LEFT JOIN tenants_project project ON project.id = line.project_id;

COMMENT ON VIEW reporting.focus IS
    'All charges of tenants, in the columns of FOCUS 1.2. BilledCost sums to the invoice''s total by InvoiceId, and over
     all rows to what the ledger earned plus adjustments and taxes. Amounts are units of the currency.';
COMMENT ON COLUMN reporting.focus."BilledCost" IS 'Invoiced amount in units of BillingCurrency, waived amounts deducted.';
COMMENT ON COLUMN reporting.focus."BillingAccountId" IS 'Slug of the tenant that is charged.';
COMMENT ON COLUMN reporting.focus."BillingAccountName" IS 'The tenant''s name.';
COMMENT ON COLUMN reporting.focus."BillingAccountType" IS 'Always Tenant.';
COMMENT ON COLUMN reporting.focus."BillingCurrency" IS 'Currency code of ISO 4217.';
COMMENT ON COLUMN reporting.focus."BillingPeriodEnd" IS 'Exclusive end of the statement''s month in the tenant''s time zone.';
COMMENT ON COLUMN reporting.focus."BillingPeriodStart" IS 'Start of that month.';
COMMENT ON COLUMN reporting.focus."ChargeCategory" IS 'Usage, Adjustment or Tax.';
COMMENT ON COLUMN reporting.focus."ChargeClass" IS 'Correction if it corrects an earlier invoice; else null.';
COMMENT ON COLUMN reporting.focus."ChargeDescription" IS 'Description for readers.';
COMMENT ON COLUMN reporting.focus."ChargeFrequency" IS 'Usage-Based, or One-Time for adjustments and taxes.';
COMMENT ON COLUMN reporting.focus."ChargePeriodEnd" IS 'Exclusive end of the day of use; for a tax or a minimum, of its billing period.';
COMMENT ON COLUMN reporting.focus."ChargePeriodStart" IS 'Start of that day or period.';
COMMENT ON COLUMN reporting.focus."ConsumedQuantity" IS 'Quantity of use; null for adjustments and taxes.';
COMMENT ON COLUMN reporting.focus."ConsumedUnit" IS 'Unit of ConsumedQuantity.';
COMMENT ON COLUMN reporting.focus."ContractedCost" IS 'Cost at the tenant''s prices and discount, before waived amounts.';
COMMENT ON COLUMN reporting.focus."ContractedUnitPrice" IS 'The tenant''s unit price after discount; for tiered prices the average.';
COMMENT ON COLUMN reporting.focus."EffectiveCost" IS 'Equal to BilledCost, since nothing is prepaid.';
COMMENT ON COLUMN reporting.focus."InvoiceId" IS 'Number of the final statement or credit note; null until then.';
COMMENT ON COLUMN reporting.focus."InvoiceIssuerName" IS 'Name of the invoice issuer, EASEL_PROVIDER_NAME.';
COMMENT ON COLUMN reporting.focus."ListCost" IS 'Cost at list prices.';
COMMENT ON COLUMN reporting.focus."ListUnitPrice" IS 'The list''s unit price; for tiered prices the average.';
COMMENT ON COLUMN reporting.focus."PricingCategory" IS 'Standard for usage, else null.';
COMMENT ON COLUMN reporting.focus."PricingQuantity" IS 'Priced quantity; null for adjustments and taxes.';
COMMENT ON COLUMN reporting.focus."PricingUnit" IS 'Unit of PricingQuantity.';
COMMENT ON COLUMN reporting.focus."ProviderName" IS 'Equal to InvoiceIssuerName.';
COMMENT ON COLUMN reporting.focus."PublisherName" IS 'Equal to InvoiceIssuerName.';
COMMENT ON COLUMN reporting.focus."ResourceId" IS 'The version that served the job, as model@number; null for storage.';
COMMENT ON COLUMN reporting.focus."ResourceName" IS 'The model that the request named; null for storage.';
COMMENT ON COLUMN reporting.focus."ResourceType" IS 'Model Version, or null.';
COMMENT ON COLUMN reporting.focus."ServiceCategory" IS 'AI and Machine Learning, or Storage.';
COMMENT ON COLUMN reporting.focus."ServiceName" IS 'Image Generation, or Image Storage.';
COMMENT ON COLUMN reporting.focus."ServiceSubcategory" IS 'Generative AI, or Object Storage.';
COMMENT ON COLUMN reporting.focus."SkuId" IS 'The meter, and the model, GPU class and tier to which the price applies.';
COMMENT ON COLUMN reporting.focus."SkuMeter" IS 'The meter, for readers.';
COMMENT ON COLUMN reporting.focus."SkuPriceDetails" IS 'The price book, and the price''s mode: flat, graduated or volume.';
COMMENT ON COLUMN reporting.focus."SkuPriceId" IS 'The price book and its rate.';
COMMENT ON COLUMN reporting.focus."SubAccountId" IS 'Id of the project; null if the row belongs to none.';
COMMENT ON COLUMN reporting.focus."SubAccountName" IS 'Slug of the project.';
COMMENT ON COLUMN reporting.focus."SubAccountType" IS 'Project, or null.';
COMMENT ON COLUMN reporting.focus."Tags" IS 'The project''s labels at the time of use; for an adjustment the current ones.';
COMMENT ON COLUMN reporting.focus."x_Adapter" IS 'Names of the LoRA adapters, joined by +.';
COMMENT ON COLUMN reporting.focus."x_ChargeKind" IS 'usage, correction or tax; for an adjustment credit, debit, minimum or volume.';
COMMENT ON COLUMN reporting.focus."x_Charges" IS 'Number of charges in the sum.';
COMMENT ON COLUMN reporting.focus."x_ApiKeyId" IS 'The public part of the API key.';
COMMENT ON COLUMN reporting.focus."x_Discount" IS 'The discount of the contract and, of a batch''s work, of the price book: 0.1 is ten percent.';
COMMENT ON COLUMN reporting.focus."x_GpuClass" IS 'The GPU class of GPU seconds.';
COMMENT ON COLUMN reporting.focus."x_Meter" IS 'The meter, as in reporting.costs.';
COMMENT ON COLUMN reporting.focus."x_Model" IS 'The model that the request named.';
COMMENT ON COLUMN reporting.focus."x_Pool" IS 'The pool that ran the job.';
COMMENT ON COLUMN reporting.focus."x_Quality" IS 'The requested quality.';
COMMENT ON COLUMN reporting.focus."x_Resolution" IS 'Width x height in pixels.';
COMMENT ON COLUMN reporting.focus."x_StorageKind" IS 'For storage, the kind of file: output or adapter.';
COMMENT ON COLUMN reporting.focus."x_Tier" IS 'The tier of the job.';
