"""Do rollups tell the same as the rows they are made from?"""
